"""The picture side of the LLaVA families: what the vision tower sees of a picture, and what comes out of it.

Source: transformers `models/llava`; the padding of the original from haotian-liu/LLaVA `llava/mm_utils.py`
(`expand2square`), restated from its behaviour.
Rule: `prepare_picture` and `cells` stand side by side because the second says what the first does to a picture.

Axis letters: n pictures, t tokens of one picture, e hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._cells import Cells, Seen, cells_of, centre, whole
from lmms_ca_plugin.families._contract import Kind
from lmms_ca_plugin.families._decoder import Decoder
from lmms_ca_plugin.families._views import Features


class LlavaPictures(Decoder):
    """A CLIP-like tower under `model.vision_tower`, a projector, one square view of `image_size` pixels."""

    # ---- geometry ----------------------------------------------------------------------------------------------------
    @property
    def view_side(self) -> int:
        """Side of a view, pixels."""
        side: int = self.model.config.vision_config.image_size
        return side

    @property
    def cells_per_side(self) -> int:
        """Cells of a view each way."""
        patch: int = self.model.config.vision_config.patch_size
        return self.view_side // patch

    def base_tokens(self, picture: tuple[int, int]) -> int:  # noqa: ARG002
        """Tokens of a picture that enters as its base view only, whatever its shape."""
        return self.cells_per_side**2

    def prepare_picture(self, picture: Image.Image) -> Image.Image:
        """Makes a picture what the image processor shall see: RGB and, with `pad`, square.

        Args:
            picture: Any mode and size.

        Returns:
            RGB; with `pad` as wide as high, the border in the processor's mean colour, rounded down.
        """
        picture = super().prepare_picture(picture)
        if self.inputs.image_aspect_ratio == "processor":
            return picture
        side = max(picture.size)
        colour = tuple(int(mean * 255) for mean in self.processor.image_processor.image_mean)
        square = Image.new("RGB", (side, side), colour)
        square.paste(picture, _border(picture.size))
        return square

    def cells(self, picture: tuple[int, int]) -> Cells:
        """Says where the base view's cells lie on a picture.

        Args:
            picture: Width and height, before any preparation.

        Returns:
            The cells, after the family's own padding and what the processor does with its result.

        Raises:
            CheckpointError: The processor's settings are not ones whose effect is known here.
        """
        grid = (self.cells_per_side, self.cells_per_side)
        if self.inputs.image_aspect_ratio == "processor":
            return cells_of(picture, self.seen(picture), grid)
        square = (max(picture), max(picture))
        return cells_of(square, self.seen(square), grid).moved(*_border(picture), picture)

    def seen(self, picture: tuple[int, int]) -> Seen:
        """Says what the base view shows of a picture that the image processor is given.

        Args:
            picture: Width and height.

        Returns:
            The rectangle: the middle for a centre crop, all for a plain resize, the square around it for `do_pad`.

        Raises:
            CheckpointError: The processor's settings are not ones whose effect is known here.
        """
        processor = self.processor.image_processor
        size, crop = _sides(processor.size), _sides(getattr(processor, "crop_size", None))
        width, height = picture
        if getattr(processor, "do_pad", False):
            side = max(picture)
            left, top = _border(picture)
            inside = self._resized((side, side), size, crop)
            return Seen(inside.left - left, inside.top - top, inside.width, inside.height)
        return self._resized((width, height), size, crop)

    def _resized(self, picture: tuple[int, int], size: dict[str, int], crop: dict[str, int]) -> Seen:
        processor = self.processor.image_processor
        if processor.do_resize and "shortest_edge" in size and getattr(processor, "do_center_crop", False):
            return centre(picture, size["shortest_edge"], (crop["width"], crop["height"]))
        if processor.do_resize and {"height", "width"} <= set(size) and not getattr(processor, "do_center_crop", False):
            return whole(picture)
        raise CheckpointError(
            f"The image processor's settings (do_resize={processor.do_resize}, size={size}, "
            f"do_center_crop={getattr(processor, 'do_center_crop', False)}) do not say which part of a picture the "
            "vision tower sees. Known: a resize to height and width, or of the shortest edge with a centre crop."
        )

    # ---- features ----------------------------------------------------------------------------------------------------
    def base_pixels(self, pictures: dict[str, Tensor]) -> Sequence[Tensor]:
        """Takes the base views out of `Inputs.pictures`: (3, height, width) for each."""
        return pictures["pixel_values"].unbind()

    def picture_features(self, pictures: dict[str, Tensor]) -> list[Features]:
        """Runs the vision tower and the projector.

        Args:
            pictures: `pixel_values` (n, 3, height, width) for n pictures.

        Returns:
            One entry per picture.
        """
        output = self.model.model.get_image_features(pixel_values=pictures["pixel_values"])
        found = getattr(output, "pooler_output", output)  # 4.57 returns the list itself
        return [Features(f, torch.full((len(f),), Kind.BASE, dtype=torch.int8, device=f.device)) for f in found]


def _border(picture: tuple[int, int]) -> tuple[int, int]:
    """Left and upper border that make a picture a square with it in the middle, whole pixels rounded down."""
    width, height = picture
    side = max(width, height)
    return (side - width) // 2, (side - height) // 2


def _sides(size: Any) -> dict[str, int]:
    """Reads an image processor's size, which is a dict in some releases of transformers and an object in others."""
    names = ("height", "width", "shortest_edge")
    found: dict[str, Any] = size if isinstance(size, dict) else {name: getattr(size, name, None) for name in names}
    return {name: int(found[name]) for name in names if found.get(name) is not None}
