"""What a family of checkpoints must tell the engine: paths, prompts, pictures, and where the image tokens are.

A family is one file named after `config.model_type`; a sibling is a short subclass. The engine calls the blocks itself
(it never calls the model's own forward), so a family only takes trunks whose forward is what the engine does: embed,
blocks, final norm, head. Everything else is refused by name.

Axis letters: b samples, s prompt positions, e hidden size, k key positions, v vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PretrainedConfig

from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._inputs import AspectRatio as AspectRatio  # parts of the contract, in files of their own
from lmms_ca_plugin.families._inputs import Inputs as Inputs
from lmms_ca_plugin.families._inputs import Message as Message
from lmms_ca_plugin.families._inputs import Question as Question
from lmms_ca_plugin.families._masks import causal_mask
from lmms_ca_plugin.families._narrow import Narrow as Narrow
from lmms_ca_plugin.families._options import AS_TRAINED
from lmms_ca_plugin.families._options import InputOptions as InputOptions
from lmms_ca_plugin.families._trunk import Trunk as Trunk
from lmms_ca_plugin.families._views import Views


class Kind(IntEnum):
    """What a prompt position holds."""

    TEXT = 0
    BASE = 1  # a token of the view that shows the whole picture
    TILE = 2  # a token of a high-resolution tile
    NEWLINE = 3  # the separator that closes a row of tiles; it holds image content after block 0


@dataclass(frozen=True)
class Prompt:
    """A batch ready for block 0.

    Attributes:
        input_ids: (b, s).
        states: (b, s, e), token embeddings with the picture features merged in.
        attention_mask: (b, s) bool, True at real tokens.
        kinds: (b, s) int8, a `Kind` for every position; padding counts as text.
        positions: Rotary positions: (b, s), where real tokens count from 0, or (b, s, ...), as the family counts.
        seeds: One whole number per sample, fixed by (seed, task, document, repeat).
    """

    input_ids: Tensor
    states: Tensor
    attention_mask: Tensor
    kinds: Tensor
    positions: Tensor
    seeds: tuple[int, ...] = field(default=())

    @property
    def is_image(self) -> Tensor:
        """(b, s) bool: the positions of image tokens, newlines included."""
        return self.kinds != Kind.TEXT


class Family(Views, ABC):
    """A loaded checkpoint of one `model_type`.

    Args:
        model: The conditional-generation model, in eval mode.
        processor: Its processor.
        inputs: How prompts and pictures are prepared.

    Attributes:
        inputs: The same, settled: None is left only where an option has no meaning.
    """

    model_type: ClassVar[str]
    trunks: ClassVar[dict[str, frozenset[str]]]  # text model_type -> config attributes that only its blocks read

    def __init__(self, model: Any, processor: Any, inputs: InputOptions = AS_TRAINED) -> None:
        self.model = model
        self.processor = processor
        # The config names the tie at different places in different releases; the weights themselves cannot be wrong.
        head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        self.trunk = replace(type(self).describe(model.config), tied_embeddings=head.data_ptr() == embedding.data_ptr())
        self.inputs = self.fit(processor, model.config, self.trunk, inputs)

    @classmethod
    def describe(cls, config: Any) -> Trunk:
        """Reads the trunk's facts from a config and refuses what the engine would compute wrongly.

        Args:
            config: The checkpoint's config.

        Returns:
            The facts.

        Raises:
            CheckpointError: The trunk's type, or one of its attributes, is not supported.
        """
        text = config.get_text_config()
        if text.model_type not in cls.trunks:
            raise CheckpointError(
                f"Language model type '{text.model_type}' inside '{cls.model_type}' is not supported. "
                f"Allowed: {', '.join(sorted(cls.trunks))}."
            )
        # Within its first window a model with a sliding one attends to everything, as all masks here do.
        window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
        reference, bookkeeping = type(text)(), PretrainedConfig()
        for name, default in reference.to_dict().items():
            # What transformers' own class does not define its blocks do not read, and None turns a feature off.
            value = getattr(text, name, default)
            matters = value is not None and value != default and not hasattr(bookkeeping, name)
            if matters and name not in cls.trunks[text.model_type]:
                raise CheckpointError(
                    f"The language model's attribute {name}={value!r} is not one this engine knows to be handled by "
                    f"the blocks alone, so its answers might be wrong. Teach families/{cls.model_type}.py."
                )
        return Trunk(
            model_type=cls.model_type,
            text_type=text.model_type,
            num_blocks=text.num_hidden_layers,
            hidden_size=text.hidden_size,
            num_heads=text.num_attention_heads,
            num_key_value_heads=text.num_key_value_heads,
            head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            mlp_size=text.intermediate_size,
            max_positions=min(text.max_position_embeddings, window or text.max_position_embeddings),
            image_token_id=config.image_token_id,
            vocabulary=text.vocab_size,
            tied_embeddings=bool(getattr(text, "tie_word_embeddings", config.tie_word_embeddings)),
        )

    @classmethod
    def fit(cls, processor: Any, config: Any, trunk: Trunk, inputs: InputOptions) -> InputOptions:  # noqa: ARG003
        """Fits a processor to its checkpoint, and refuses one that cannot ask questions; no weight is needed.

        Args:
            processor: The processor; what its file leaves open is set.
            config: The checkpoint's config.
            trunk: What `describe` read from it.
            inputs: How prompts and pictures are to be prepared.

        Returns:
            The same, settled.

        Raises:
            CheckpointError: The processor does not belong to the checkpoint.
            OptionError: An option's value is not one that the family knows.
        """
        if processor.tokenizer.pad_token_id is None:
            raise CheckpointError(
                "The checkpoint's tokenizer has no pad token, so questions cannot be batched. Set one."
            )
        processor.tokenizer.padding_side = "left"
        return inputs

    @property
    def repetition_penalty(self) -> float:
        """By what the checkpoint's generation settings have the tokens so far penalised; 1 changes nothing."""
        penalty = getattr(self.model.generation_config, "repetition_penalty", None)
        return 1.0 if penalty is None else float(penalty)

    # ---- paths -------------------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""

    @property
    @abstractmethod
    def text_config(self) -> Any:
        """The config object that the blocks' attention modules hold."""

    @abstractmethod
    def input_norm(self, block: int) -> nn.Module:
        """The norm between the residual stream and a block's attention."""

    # ---- the pass ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def encode(self, questions: Sequence[Question]) -> Inputs:
        """Renders prompts and pictures of a batch; runs on the CPU and touches no weight."""

    @abstractmethod
    def embed(self, inputs: Inputs) -> Prompt:
        """Runs the vision side, unless its features are there already, and merges them into the token embeddings."""

    @abstractmethod
    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Looks new tokens up: (b, q) -> (b, q, e)."""

    @abstractmethod
    def block_arguments(self, states: Tensor, positions: Tensor) -> dict[str, Any]:
        """What every block takes beside states and mask: rotary embeddings of `positions`, (b, q) or (b, q, ...)."""

    @abstractmethod
    def norm(self, states: Tensor) -> Tensor:
        """The final norm, between the last block and the head: (..., e) -> (..., e)."""

    @abstractmethod
    def head(self, states: Tensor) -> Tensor:
        """The head alone: (..., e) -> (..., v)."""

    def logits(self, states: Tensor) -> Tensor:
        """Final norm and head: (b, e) -> (b, v)."""
        return self.head(self.norm(states))

    def between(self, block: int, states: Tensor) -> Tensor:  # noqa: ARG002
        """The states (b, s, e) after `block` with what the model adds to them: nothing, unless a family says so.

        A family that adds something names the blocks in `Trunk.added_after`.
        """
        return states

    def narrow(self, block: int) -> Narrow | None:  # noqa: ARG002
        """The modules of a block whose work may be done for the last position alone; None has all of it done."""
        return None

    def mask(self, states: Tensor, attention_mask: Tensor) -> Tensor | None:
        """Builds the attention mask that the chosen kernel wants, through transformers' own mask function.

        Args:
            states: (b, q, e), the positions about to pass the blocks.
            attention_mask: (b, k) bool over the positions seen so far and these.

        Returns:
            What the kernel takes, e.g. (b, 1, q, k) bool, or None where a plain causal mask will do.
        """
        return causal_mask(self.text_config, states, attention_mask)
