"""Draws a scene as a picture, with the marks of what was drawn where.

Pictures are 256 x 256 pixels: twice what the bundled checkpoint sees of a whole picture, so that a crop shows more.
Everything that the scene leaves open (exact places, shades, the background) comes from the scene's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lmms_ca_plugin.tiny.world.scenes import SIDE, Scene, Sign, Thing
from lmms_ca_plugin.tiny.world.vocabulary import BACKGROUNDS, COLORS

PIXELS = 256
_PLACE = PIXELS / SIDE
_RADIUS = {"small": 19.0, "large": 34.0}
_BLUR = 22.0  # pixels; nothing that is written or drawn can be told after it
_SPACE = 0.3  # between words, of the size of the font
_DARKNESS = 0.015  # grey levels 0 to 3 are left

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class Mark:
    """Something drawn, and where.

    Attributes:
        box: Where it lies.
        thing: The shape, if it is one.
        text: The writing, if it is writing.
        sign: The board, if it is one.
    """

    box: Box
    thing: Thing | None = None
    text: str = ""
    sign: Sign | None = None


@dataclass(frozen=True)
class Rendered:
    """A picture and its marks, which are empty where nothing can be made out."""

    image: Image.Image
    marks: tuple[Mark, ...]


@cache
def _font(size: int) -> Any:
    # The basic layout is the same with and without Pillow's optional text shaping.
    font: Any = ImageFont.load_default(size)
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def render(scene: Scene) -> Rendered:
    """Draws a scene.

    Args:
        scene: The scene.

    Returns:
        The picture (RGB, 256 x 256) and its marks; the same name (and Pillow release) gives the same pixels.
    """
    draw = Random(f"{scene.name}:drawing")
    image = Image.new("RGB", (PIXELS, PIXELS), _shade(draw, draw.choice(BACKGROUNDS), 10))
    pen = ImageDraw.Draw(image)
    marks = _page(pen, draw, scene) if scene.title else ()
    marks += tuple(mark for sign in scene.signs for mark in _sign(pen, draw, sign))
    marks += tuple(_thing(pen, draw, thing) for thing in scene.things)
    if scene.quality == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(_BLUR))
    elif scene.quality == "dark":
        image = image.point(lambda value: int(value * _DARKNESS))
    elif scene.quality == "blank":
        image = Image.new("RGB", image.size, image.getpixel((0, 0)))
    return Rendered(image, marks if scene.quality == "sharp" else ())


def _shade(draw: Random, color: tuple[int, int, int], by: int) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, part + draw.randint(-by, by))) for part in color)
    return red, green, blue


def _outline(color: str) -> tuple[int, int, int]:
    return (90, 90, 92) if color == "white" else (30, 30, 30)


# ---- shapes ----------------------------------------------------------------------------------------------------------
def _polygon(x: float, y: float, radii: list[float], turn: float) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [(x + r * math.sin(turn + i * step), y - r * math.cos(turn + i * step)) for i, r in enumerate(radii)]


def _thing(pen: ImageDraw.ImageDraw, draw: Random, thing: Thing) -> Mark:
    r = _RADIUS[thing.size] * draw.uniform(0.92, 1.08)
    slack = _PLACE / 2 - r
    x = (thing.column + 0.5) * _PLACE + draw.uniform(-1, 1) * max(slack, 0) * 0.8
    y = (thing.row + 0.5) * _PLACE + draw.uniform(-1, 1) * max(slack, 0) * 0.8
    box = (x - r, y - r, x + r, y + r)
    paint: dict[str, Any] = {"fill": _shade(draw, COLORS[thing.color], 14), "outline": _outline(thing.color)}
    if thing.shape == "circle":
        pen.ellipse(box, **paint)
    elif thing.shape == "ring":
        pen.ellipse(box, fill=None, outline=paint["fill"], width=round(r * 0.42))
    elif thing.shape == "square":
        pen.rectangle((x - 0.86 * r, y - 0.86 * r, x + 0.86 * r, y + 0.86 * r), **paint)
    elif thing.shape == "diamond":
        pen.polygon(_polygon(x, y, [1.08 * r, 0.72 * r] * 2, 0.0), **paint)
    elif thing.shape == "triangle":
        pen.polygon(_polygon(x, y + 0.2 * r, [1.15 * r] * 3, 0.0), **paint)
    elif thing.shape == "star":
        pen.polygon(_polygon(x, y, [1.12 * r, 0.46 * r] * 5, 0.0), **paint)
    elif thing.shape == "cross":
        a = 0.34 * r
        half = [(a, -r), (a, -a), (r, -a), (r, a), (a, a), (a, r)]
        pen.polygon([(x + u, y + v) for u, v in half] + [(x - u, y - v) for u, v in half], **paint)
    else:
        pen.polygon(_heart(x, y, r), **paint)
    return Mark(box, thing=thing)


def _heart(x: float, y: float, r: float) -> list[tuple[float, float]]:
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        across = 16 * math.sin(t) ** 3
        up = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x + across * r / 16, y - up * r / 16))
    return points


# ---- writing ---------------------------------------------------------------------------------------------------------
def _write(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, ink: tuple[int, int, int]) -> Mark:
    """Writes a text; `at` is its left end and the middle of its height."""
    font = _font(size)
    pen.text(at, text, fill=ink, font=font, anchor="lm")
    left, top, right, bottom = pen.textbbox(at, text, font=font, anchor="lm")
    return Mark((left, top, right, bottom), text=text)


def _sign(pen: ImageDraw.ImageDraw, draw: Random, sign: Sign) -> tuple[Mark, ...]:
    size = draw.randint(30, 38)
    width = pen.textlength(sign.text, font=_font(size))
    while width > PIXELS - 44:
        size -= 2
        width = pen.textlength(sign.text, font=_font(size))
    across, down = draw.uniform(8, 16), draw.uniform(6, 12)
    half = size * 0.5 + down
    left = draw.uniform(4, PIXELS - 4 - width - 2 * across)
    middle = (sign.row + 0.5) * _PLACE + draw.uniform(-1, 1) * max(_PLACE / 2 - half - 3, 0)
    box = (left, middle - half, left + width + 2 * across, middle + half)
    pen.rectangle(box, fill=_shade(draw, COLORS[sign.color], 14), outline=_outline(sign.color), width=2)
    ink = (15, 15, 15) if sign.color in ("white", "yellow", "orange") else (250, 250, 250)
    return Mark(box, sign=sign), _write(pen, (left + across, middle), sign.text, size, ink)


def _page(pen: ImageDraw.ImageDraw, draw: Random, scene: Scene) -> tuple[Mark, ...]:
    left, top = draw.uniform(4, 14), draw.uniform(2, 10)
    pen.rectangle((left - 4, top - 2, PIXELS - 4, PIXELS - 4), fill=_shade(draw, (244, 243, 238), 8))
    size = draw.randint(20, 24)
    while _page_width(pen, scene, size) > PIXELS - left - 16:
        size -= 1
    y = top + 18
    marks = [_write(pen, (left + 2, y), scene.title, size + 5, (10, 10, 10))]
    pen.line((left + 2, y + 19, PIXELS - 12, y + 19), fill=(70, 70, 70), width=2)
    step = min(draw.uniform(36, 42), (PIXELS - 20 - y - 42) / max(len(scene.fields) - 1, 1))
    y += 42
    column = left + 2 + _label_width(pen, scene, size)
    for line in scene.fields:
        _write(pen, (left + 2, y), f"{line.label}:", size, (96, 96, 100))
        x = column
        for word in line.value.split():
            marks.append(_write(pen, (x, y), word, size, (10, 10, 10)))
            x = marks[-1].box[2] + size * _SPACE
        y += step
    return tuple(marks)


def _label_width(pen: ImageDraw.ImageDraw, scene: Scene, size: int) -> float:
    """The labels' column, with the gap to the values."""
    return max(pen.textlength(f"{line.label}:", font=_font(size)) for line in scene.fields) + 0.5 * size


def _page_width(pen: ImageDraw.ImageDraw, scene: Scene, size: int) -> float:
    values = [pen.textlength(line.value, font=_font(size)) + _SPACE * size for line in scene.fields]
    return _label_width(pen, scene, size) + max(values)
