"""Qwen2-VL: a picture is one view of its own shape, as many cells as its pixels give, each a token.

Source: transformers `models/qwen2_vl`; Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the
World at Any Resolution", section 2 (M-RoPE), restated from its formula. The side of ViCrop's window is that of
saccharomycetes/mllms_know at commit a64c5d5, `run.py`, for Qwen2.5-VL.
Deviates from `families/llava.py`: rotary positions have three axes, time, row and column; a picture has no border and
is not cut, and what bounds its size are the processor's own `shortest_edge` and `longest_edge` (pixels, not sides).
Videos are not asked about.

Axis letters: b samples, s prompt positions, q positions of this pass, n pictures, t tokens of one picture, p patches of
one picture, m x m patches that are merged into one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from lmms_ca_plugin.errors import CheckpointError, OptionError
from lmms_ca_plugin.families._cells import Cells, cells_of, whole
from lmms_ca_plugin.families._contract import InputOptions, Kind, Trunk
from lmms_ca_plugin.families._decoder import HANDLED, Decoder
from lmms_ca_plugin.families._options import AS_TRAINED
from lmms_ca_plugin.families._views import Features

_COLOURS = 3


class Qwen2VL(Decoder):
    """Qwen2-VL.

    Module tree: `model.visual`, `model.language_model.{embed_tokens, layers, norm, rotary_emb}`, `lm_head`.
    """

    model_type = "qwen2_vl"
    # 4.57 calls the trunk of a config without parts, as it was published, by the checkpoint's type.
    trunks: ClassVar = {"qwen2_vl_text": HANDLED, "qwen2_vl": HANDLED}
    aspect_ratios = ("processor",)
    conversations = ("processor",)
    longest_ratio = 200  # the processor takes no thinner ones
    picture_inputs = ("pixel_values", "image_grid_thw")
    view_side = 224

    def __init__(self, model: Any, processor: Any, inputs: InputOptions = AS_TRAINED) -> None:
        processor = copy(processor)  # a bound of pictures is this family's own
        processor.image_processor = copy(processor.image_processor)
        super().__init__(model, processor, inputs)

    @classmethod
    def fit(cls, processor: Any, config: Any, trunk: Trunk, inputs: InputOptions) -> InputOptions:
        """Refuses a processor that cuts pictures otherwise than the vision tower takes them."""
        tower = config.vision_config
        for name, taken in (
            ("patch_size", tower.patch_size),
            ("merge_size", tower.spatial_merge_size),
            ("temporal_patch_size", tower.temporal_patch_size),
            ("do_resize", True),  # else a picture's sides need not be whole cells
        ):
            given = getattr(processor.image_processor, name, None)
            if given != taken:
                raise CheckpointError(
                    f"The processor's {name} is {given}, but must be {taken} for this vision tower. Use the processor "
                    "that belongs to the checkpoint."
                )
        return super().fit(processor, config, trunk, inputs)

    @classmethod
    def bound(cls, processor: Any, max_pixels: int | None) -> int:
        """Has the processor make larger pictures smaller; see `Chat.bound`."""
        pictures = processor.image_processor
        least, most = _bounds(pictures)
        if max_pixels is None:
            return most
        if max_pixels < least:
            raise OptionError(
                f"max_pixels={max_pixels} is not allowed. Allowed: {least}, the processor's least, and more."
            )
        pictures.size = {"shortest_edge": least, "longest_edge": max_pixels}
        if hasattr(pictures, "max_pixels"):  # 4.57 holds it twice
            pictures.max_pixels = max_pixels
        return max_pixels

    # ---- geometry ----------------------------------------------------------------------------------------------------
    @property
    def _merge_size(self) -> int:
        side: int = self.model.config.vision_config.spatial_merge_size
        return side

    def cells(self, picture: tuple[int, int]) -> Cells:
        """Says where the tokens' cells lie: on the whole picture, in a grid that follows its shape."""
        processor = self.processor.image_processor
        cell = processor.patch_size * self._merge_size
        width, height = picture
        least, most = _bounds(processor)
        sides = smart_resize(height, width, factor=cell, min_pixels=least, max_pixels=most)
        return cells_of(picture, whole(picture), (sides[0] // cell, sides[1] // cell))

    def base_tokens(self, picture: tuple[int, int]) -> int:
        """Tokens of a picture; its one view is all of it."""
        rows, columns = self.cells(picture).grid
        return rows * columns

    def base_pixels(self, pictures: dict[str, Tensor]) -> list[Tensor]:
        """Puts a picture's patches together again: (3, height, width) for each.

        The tower takes a picture as two equal frames; their mean is the picture, and of gradients half of what one
        picture would get.
        """
        patch, m = self.processor.image_processor.patch_size, self._merge_size
        views = []
        grids = pictures["image_grid_thw"].tolist()
        for patches, (_, rows, columns) in zip(_without_filling(pictures), grids, strict=True):
            cut = patches.view(rows // m, columns // m, m, m, _COLOURS, -1, patch, patch).mean(5)
            views.append(cut.permute(4, 0, 2, 5, 1, 3, 6).reshape(_COLOURS, rows * patch, columns * patch))
        return views

    # ---- pictures ----------------------------------------------------------------------------------------------------
    def by_picture(self, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parts the patches of all pictures, (p of all, values), by picture: (n, most p, values), filled up by 0."""
        if not pictures:
            return {}
        grids = pictures["image_grid_thw"]  # (n, 3)
        parted = torch.split(pictures["pixel_values"], grids.prod(-1).tolist())
        return {"pixel_values": pad_sequence(list(parted), batch_first=True), "image_grid_thw": grids}

    def moved(self, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Brings the patches of all pictures to the model's device and type, (p of all, values), and nothing else."""
        return super().moved({**pictures, "pixel_values": torch.cat(_without_filling(pictures))})

    def picture_features(self, pictures: dict[str, Tensor]) -> list[Features]:
        """Runs the vision tower, which merges patches, over n pictures.

        Args:
            pictures: `pixel_values` (p of all, values) and `image_grid_thw` (n, 3), patches each way before merging.

        Returns:
            One entry per picture.
        """
        pixels, grids = pictures["pixel_values"], pictures["image_grid_thw"]
        output = self.model.model.get_image_features(pixel_values=pixels, image_grid_thw=grids.to(pixels.device))
        found = getattr(output, "pooler_output", output)  # 4.57 returns the list itself
        return [
            Features(states, torch.full((len(states),), Kind.BASE, dtype=torch.int8, device=states.device), tuple(grid))
            for states, (_, *grid) in zip(found, (grids // self._merge_size).tolist(), strict=True)
        ]

    # ---- the pass ----------------------------------------------------------------------------------------------------
    def positions(self, attention_mask: Tensor, placeholders: Tensor, features: Sequence[Features]) -> Tensor:
        """Counts as M-RoPE does: a picture takes as many positions as its longer side has cells.

        Returns:
            (b, s, 3): time, row and column. They are equal for text; a picture's begin where the text before it ended,
            and the row and column of a cell are added.
        """
        steps = attention_mask.long()  # (b, s): how far the next token lies from this one
        offsets = steps.new_zeros(*steps.shape, 3)
        if features:
            places = [_places(seen) for seen in features]  # (t, 3) each
            widths = [torch.cat([of.new_zeros(len(of) - 1), of.max()[None] + 1]) for of in places]  # (t,) each
            steps = steps.masked_scatter(placeholders, torch.cat(widths).to(steps))
            offsets = offsets.masked_scatter(placeholders[..., None], torch.cat(places).to(steps))
        return (steps.cumsum(-1) - steps)[..., None] + offsets

    def block_arguments(self, states: Tensor, positions: Tensor) -> dict[str, Any]:
        """Rotary embeddings of `positions` (b, q, 3), in the form that the installed transformers' blocks take."""
        return {"position_embeddings": self.model.model.language_model.rotary_emb(states, positions.permute(2, 0, 1))}


def _places(seen: Features) -> Tensor:
    """A picture's cells, row by row: (t, 3) of time, which stands still, row and column."""
    assert seen.grid is not None  # this family's have one
    rows, columns = seen.grid
    return torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(columns))


def _bounds(image_processor: Any) -> tuple[int, int]:
    """The least and the most pixels of a picture, which the processor calls edges.

    Raises:
        CheckpointError: It names others.
    """
    size = {name: value for name, value in dict(image_processor.size).items() if value is not None}
    if not {"shortest_edge", "longest_edge"} <= size.keys():
        raise CheckpointError(
            f"The image processor's size is {size}, which does not bound a picture's pixels. It must name "
            "shortest_edge, the least, and longest_edge, the most. Use the processor that belongs to the checkpoint."
        )
    return size["shortest_edge"], size["longest_edge"]


def _without_filling(pictures: dict[str, Tensor]) -> list[Tensor]:
    """The patches of each picture: (p, values)."""
    counts = pictures["image_grid_thw"].prod(-1).tolist()
    return [patches[:count] for patches, count in zip(pictures["pixel_values"], counts, strict=True)]


FAMILY = Qwen2VL
