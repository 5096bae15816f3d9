"""What the vision tower is shown in training, and what each of its patches shows.

A view is a whole picture or a square cut out of it, so that a crop (ViCrop's, say) is nothing new to the tower.
The labels come from the marks that the renderer leaves: they are this project's stand-in for the image-text pairs that
CLIP towers are trained on.

Axis letters: p patches of a view.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import get_args

import torch
from PIL import Image
from torch import Tensor

from lmms_ca_plugin.tiny.world.render import PIXELS, Box, Mark, Rendered
from lmms_ca_plugin.tiny.world.scenes import Quality, Scene
from lmms_ca_plugin.tiny.world.vocabulary import COLORS, LEXICON, SHAPES, SIZES

_SMALLEST_CROP = 0.4
_READABLE = 0.85  # share of a word's box that must be in the view for the word to be asked for
_DIGITS = "0123456789"
NUMBER_LENGTH = 3  # digits of the longest number in the world

CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "size": SIZES,
    "board": tuple(COLORS),
    "word": LEXICON,
    **{f"digit{i}": tuple(_DIGITS) for i in range(NUMBER_LENGTH)},
    "quality": get_args(Quality),
}
"""What is asked of every patch; class 0 is "none of them", so a label is one more than the index here."""


@dataclass(frozen=True)
class View:
    """A square of a picture.

    Attributes:
        corner: Its left and top, pixels of the picture.
        side: Pixels of the picture.
    """

    corner: tuple[float, float] = (0.0, 0.0)
    side: float = PIXELS

    @property
    def box(self) -> Box:
        """Its box on the picture."""
        left, top = self.corner
        return (left, top, left + self.side, top + self.side)

    def cut(self, image: Image.Image) -> Image.Image:
        """Cuts the view out of the picture."""
        left, top, right, bottom = map(round, self.box)
        return image if self == View() else image.crop((left, top, right, bottom))


def some_view(draw: Random, cropped: float) -> View:
    """Draws a view: the whole picture, or with probability `cropped` a square part of it."""
    if draw.random() >= cropped:
        return View()
    side = PIXELS * draw.uniform(_SMALLEST_CROP, 1)
    return View((draw.uniform(0, PIXELS - side), draw.uniform(0, PIXELS - side)), side)


def labels(scene: Scene, rendered: Rendered, view: View, patches: int) -> dict[str, Tensor]:
    """Says what every patch of a view shows.

    Args:
        scene: The scene.
        rendered: Its picture.
        view: Which part is looked at.
        patches: Patches per side.

    Returns:
        (p,) class numbers by name of `CLASSES`, row by row; 0 is none.
    """
    found = {name: torch.zeros(patches, patches, dtype=torch.long) for name in CLASSES}
    found["quality"][:] = 1 + CLASSES["quality"].index(scene.quality)
    for mark in rendered.marks:
        if mark.text and _seen_share(mark.box, view) < _READABLE:
            continue
        for name, number in _classes(mark).items():
            rows, columns = (_covered(mark.box[i], mark.box[i + 2], view.corner[i], view.side, patches) for i in (1, 0))
            found[name][rows, columns] = number
    return {name: grid.flatten() for name, grid in found.items()}


def _covered(start: float, end: float, corner: float, side: float, patches: int) -> slice:
    """The patches of which a stretch of the picture covers a good part."""
    size = side / patches
    first, last = (start - corner) / size, (end - corner) / size
    return slice(max(0, round(first - 0.1)), max(0, round(last + 0.1)))


def _seen_share(box: Box, view: View) -> float:
    """The share of a box that a view shows."""
    (left, top, right, bottom), (x, y, end, low) = box, view.box
    width, height = min(right, end) - max(left, x), min(bottom, low) - max(top, y)
    return max(width, 0) * max(height, 0) / ((right - left) * (bottom - top))


def _classes(mark: Mark) -> dict[str, int]:
    if mark.thing is not None:
        return {name: 1 + CLASSES[name].index(getattr(mark.thing, name)) for name in ("shape", "color", "size")}
    if mark.sign is not None:
        return {"board": 1 + CLASSES["board"].index(mark.sign.color)}
    if mark.text in LEXICON:
        return {"word": 1 + LEXICON.index(mark.text)}
    return {f"digit{i}": 1 + _DIGITS.index(digit) for i, digit in enumerate(mark.text)}
