"""What a tiny model looks like: one frozen dataclass, checked where it is made."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch

from lmms_ca_plugin.errors import OptionError, unknown

MODEL_TYPES = ("llava", "llava_next")
Words = Literal["corpus", "world"]

# LLaVA-NeXT's anyres resolutions (height, width) in units of the vision tower's image side.
_PINPOINTS_IN_TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


@dataclass(frozen=True)
class TinySettings:
    """Sizes and seed of a tiny model.

    The defaults keep what methods depend on at its real value (32 blocks, 24x24 image tokens a view, 4096 positions)
    and shrink the width only.

    Args:
        model_type: `"llava"` (LLaVA-1.5) or `"llava_next"` (LLaVA-1.6).
        seed: Seed of the weights. Every tensor has its own stream, so one size changes no other tensor's draw.
        num_blocks: Decoder blocks of the LLaMA trunk.
        hidden_size: Width of the trunk.
        num_heads: Attention heads of trunk and vision tower.
        num_key_value_heads: Key-value heads of the trunk; fewer than `num_heads` means grouped-query attention.
        image_size: Side of one view, pixels.
        patch_size: Side of one patch, pixels; a view has `(image_size / patch_size) ** 2` image tokens.
        vision_blocks: Encoder blocks of the CLIP tower.
        vision_hidden_size: Width of the vision tower; None is the trunk's.
        feature_layer: Which of the tower's hidden states are the features; -2 are those that enter its last block.
        mlp_ratio: Width of the MLPs over that of the stream.
        words: What the tokenizer is trained on: `"corpus"` (general questions) or `"world"` (the small world).
        max_position_embeddings: Positions the trunk has.
        query_key_gain: Standard deviation of the trunk's query and key components. Attention logits have about its
            square; the default keeps the Hellinger distance between blocks' image attention inside 0.1..0.9.
        eos_gain: Factor on the output row of the end token. The default ends many answers early, some at once (an empty
            answer); 0 never ends one.
        dtype: Type of the stored weights.

    Raises:
        OptionError: For an unknown model type, or sizes that do not fit each other.
    """

    model_type: str
    _: KW_ONLY
    seed: int = 0
    num_blocks: int = 32
    hidden_size: int = 64
    num_heads: int = 4
    num_key_value_heads: int = 4
    image_size: int = 336
    patch_size: int = 14
    vision_blocks: int = 2
    vision_hidden_size: int | None = None
    feature_layer: int = -2
    mlp_ratio: float = 2.0
    words: Words = "corpus"
    max_position_embeddings: int = 4096
    query_key_gain: float = 1.6
    eos_gain: float = 2.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise unknown("model_type of a tiny model", self.model_type, MODEL_TYPES)
        for name, least in (("num_blocks", 1), ("num_heads", 1), ("num_key_value_heads", 1), ("vision_blocks", 2)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}, but must be at least {least}.")
        for whole, part in (
            ("image_size", "patch_size"),
            ("hidden_size", "num_heads"),
            ("vision_width", "num_heads"),
            ("num_heads", "num_key_value_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise OptionError(
                    f"{whole} ({getattr(self, whole)}) must be a multiple of {part} ({getattr(self, part)})."
                )
        if (self.hidden_size // self.num_heads) % 2:
            raise OptionError(
                f"hidden_size / num_heads is {self.hidden_size // self.num_heads}, but rotary positions need it even."
            )

    @property
    def vision_width(self) -> int:
        """Width of the vision tower."""
        return self.hidden_size if self.vision_hidden_size is None else self.vision_hidden_size

    @property
    def view_tokens(self) -> int:
        """Image tokens of one view."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def pinpoints(self) -> list[list[int]]:
        """LLaVA-NeXT's anyres resolutions, `[height, width]` in pixels (LLaVA-1.6's list for a side of 336)."""
        return [[self.image_size * rows, self.image_size * columns] for rows, columns in _PINPOINTS_IN_TILES]
