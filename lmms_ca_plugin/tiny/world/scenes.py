"""Scenes of the small world, drawn from their names alone.

A name is `<kind>-<split>-<number>`, e.g. `shapes-eval-17`. The same name gives the same scene, everywhere.
Rule: a scene's content (what is where, not how it is jittered) decides its split by a hash, and drawing goes on until
the content is of the wanted split. So no scene of the training split has the content of one of the evaluation split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Literal

from lmms_ca_plugin.errors import InputError, unknown
from lmms_ca_plugin.tiny.world.vocabulary import COLORS, ITEMS, MONTHS, NAMES, SHAPES, SIGN_WORDS, SIZES, TITLES, TOWNS

Quality = Literal["sharp", "blurred", "dark", "blank"]
Split = Literal["train", "eval"]
SPLITS: tuple[Split, ...] = ("train", "eval")
SIDE = 3  # rows and columns of places in a picture
_EVALUATION_SHARE = 0.1


@dataclass(frozen=True)
class Thing:
    """A colored shape at a place; rows and columns count from the top left."""

    shape: str
    color: str
    size: str
    row: int
    column: int


@dataclass(frozen=True)
class Sign:
    """A colored board with a word or a number on it, as wide as its text, if the picture allows it."""

    text: str
    color: str
    row: int


@dataclass(frozen=True)
class Field:
    """A line of a page."""

    label: str
    value: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        name: The scene's name, from which everything else follows.
        things: Shapes, in reading order.
        signs: Boards, from top to bottom; a row holds a board or shapes.
        title: A page's title; `""` where the picture is no page.
        fields: A page's lines, from top to bottom.
        quality: How the photograph turned out.
    """

    name: str
    things: tuple[Thing, ...] = ()
    signs: tuple[Sign, ...] = ()
    title: str = ""
    fields: tuple[Field, ...] = ()
    quality: Quality = "sharp"

    @property
    def content(self) -> str:
        """What is where, without the name and all that only jitters the drawing."""
        return repr((self.things, self.signs, self.title, self.fields, self.quality))

    @property
    def split(self) -> Split:
        """The split that the content belongs to."""
        digest = sha256(self.content.encode()).digest()
        return "eval" if int.from_bytes(digest[:4], "big") < _EVALUATION_SHARE * 2**32 else "train"


# ---- drawing ---------------------------------------------------------------------------------------------------------
def _things(draw: Random, places: list[tuple[int, int]], count: int) -> tuple[Thing, ...]:
    chosen = sorted(draw.sample(places, count))
    return tuple(
        Thing(draw.choice(SHAPES), draw.choice(tuple(COLORS)), draw.choice(SIZES), row, column)
        for row, column in chosen
    )


def _places(rows: list[int]) -> list[tuple[int, int]]:
    return [(row, column) for row in rows for column in range(SIDE)]


def _writing(draw: Random) -> str:
    if draw.random() < 0.75:
        return draw.choice(SIGN_WORDS).upper()
    return str(draw.randint(10, 999))


def _signs(draw: Random, rows: list[int]) -> tuple[Sign, ...]:
    colors = draw.sample(tuple(COLORS), len(rows))
    return tuple(Sign(_writing(draw), color, row) for color, row in zip(colors, sorted(rows), strict=True))


def _shapes(draw: Random, name: str) -> Scene:
    count = draw.choices((1, 2, 3, 4, 5), (1, 3, 4, 3, 2))[0]
    return Scene(name, things=_things(draw, _places([0, 1, 2]), count))


def _street(draw: Random, name: str) -> Scene:
    rows = draw.sample(range(SIDE), draw.choices((1, 2, 3), (3, 3, 1))[0])
    free = _places([row for row in range(SIDE) if row not in rows])
    count = min(draw.choice((0, 0, 1, 2)), len(free))
    return Scene(name, things=_things(draw, free, count), signs=_signs(draw, rows))


VALUES: dict[str, Callable[[Random], str]] = {
    "Name": lambda draw: draw.choice(NAMES),
    "Town": lambda draw: draw.choice(TOWNS),
    "Item": lambda draw: draw.choice(ITEMS),
    "Date": lambda draw: f"{draw.randint(1, 28)} {draw.choice(MONTHS)}",
    "Total": lambda draw: str(draw.randint(10, 999)),
    "Code": lambda draw: str(draw.randint(100, 999)),
}
"""How the value of each label of a page is drawn."""


def _page(draw: Random, name: str) -> Scene:
    labels = draw.sample(tuple(VALUES), draw.choice((3, 4, 5)))
    return Scene(name, title=draw.choice(TITLES), fields=tuple(Field(label, VALUES[label](draw)) for label in labels))


def _snap(draw: Random, name: str) -> Scene:
    quality: Quality = draw.choices(("sharp", "blurred", "dark", "blank"), (14, 3, 2, 1))[0]
    if draw.random() < 0.5:
        return Scene(name, things=_things(draw, _places([0, 1, 2]), 1), quality=quality)
    return Scene(name, signs=_signs(draw, [draw.randrange(SIDE)]), quality=quality)


KINDS: dict[str, Callable[[Random, str], Scene]] = {
    "shapes": _shapes,
    "street": _street,
    "page": _page,
    "snap": _snap,
}
"""Kinds of scenes: shapes on a table, boards with writing, pages with fields, and snapshots that may have failed."""


def scene(name: str) -> Scene:
    """Draws a scene from its name.

    Args:
        name: `<kind>-<split>-<number>`.

    Returns:
        The scene; its content is of the split that the name gives.

    Raises:
        InputError: The name has another form.
        OptionError: There is no such kind or split.
    """
    kind, _, rest = name.partition("-")
    split, _, number = rest.partition("-")
    if not number.isdecimal():
        raise InputError(f"'{name}' names no scene. A name is <kind>-<split>-<number>, e.g. shapes-eval-17.")
    if kind not in KINDS:
        raise unknown("kind of scene", kind, KINDS)
    if split not in SPLITS:
        raise unknown("split of the small world", split, SPLITS)
    draw = Random(name)
    while True:
        drawn = KINDS[kind](draw, name)
        if drawn.split == split:
            return drawn
