"""The facts of a checkpoint's language model, before its weights are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmms_ca_plugin.errors import OptionError

# Each with the rows that LLaVA pads it by. LLaMA-3 has LLaMA-2's shape, but another vocabulary.
LLAMA_2_VOCABULARY = range(32000, 32128)
YI_VOCABULARY = range(64000, 64128)


@dataclass(frozen=True)
class Trunk:
    """The facts of a checkpoint's language model that methods plan with; known before any weight is loaded.

    Attributes:
        model_type: The checkpoint's.
        text_type: The language model's.
        num_blocks: Decoder blocks.
        hidden_size: Width of the residual stream.
        num_heads: Query heads per block.
        num_key_value_heads: Key-value heads per block.
        head_size: Width of a head.
        mlp_size: Width of a block's MLP.
        max_positions: Positions it was made for.
        image_token_id: The token that stands for image features in a prompt.
        vocabulary: Rows of the head.
        tied_embeddings: Whether the head is the embedding itself.
        added_after: Blocks after which the model adds something to the states (`Family.between`).
    """

    model_type: str
    text_type: str
    num_blocks: int
    hidden_size: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    mlp_size: int
    max_positions: int
    image_token_id: int
    vocabulary: int
    tied_embeddings: bool
    added_after: tuple[int, ...] = ()

    @property
    def is_paper_trunk(self) -> bool:
        """Whether the paper's block numbers mean something here: LLaVA-1.5 or 1.6 on a 32-block LLaMA of 1 or 2.

        A smaller vocabulary is that of a checkpoint made for tests; LLaMA-3's is larger.
        """
        is_llama = self.text_type == "llama" and self.vocabulary < LLAMA_2_VOCABULARY.stop
        return self.model_type in ("llava", "llava_next") and is_llama and self.num_blocks == 32

    @property
    def is_llama_2(self) -> bool:
        """Whether it is LLaMA-2, or Vicuna, which is trained from it."""
        return self.text_type == "llama" and self.vocabulary in LLAMA_2_VOCABULARY

    @property
    def is_yi(self) -> bool:
        """Whether it is Yi, the trunk of LLaVA-1.6-34B, which has LLaMA's blocks."""
        return self.text_type == "llama" and self.vocabulary in YI_VOCABULARY

    @property
    def described(self) -> str:
        """Names it in messages, e.g. "'llava' on a 12-block 'llama'"."""
        return f"'{self.model_type}' on a {self.num_blocks}-block '{self.text_type}'"

    def check_blocks(self, option: str, blocks: Iterable[int]) -> None:
        """Refuses blocks that are not there.

        Args:
            option: Who names them, for the message.
            blocks: Their numbers.

        Raises:
            OptionError: One is outside.
        """
        last = self.num_blocks - 1
        for block in blocks:
            if not 0 <= block <= last:
                raise OptionError(f"{option}: the checkpoint has no block {block}. Allowed: 0 to {last}.")
