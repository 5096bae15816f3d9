"""One picture with attention by block, what was masked and cropped, and all answers: Figure 1 of the paper.

Every panel is drawn in the picture's own pixels: a map over a view that is padded, cut out or squashed lies on the
pixels that its cells really show.

Axis letters: r rows and c columns of the base view's cells, x and y pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle as Patch

from lmms_ca_plugin.figures.style import GREY, PAGE, RED, SMALL, new_figure, styled, title, write_caption

LUMINANCE = np.array([0.299, 0.587, 0.114])
CLIPPED = 99  # percentile at which a colour scale ends, so that one sink does not turn all else dark
COLUMNS = 3  # panels side by side
TALLEST = 1.6  # height of a panel over its width
# Inches: around everything, between panels, above a panel, of the row of colour bars, of a line of text, below it.
MARGIN, GAP, TITLE, BAR, LINE, FOOT = 0.06, 0.1, 0.2, 0.52, 0.128, 0.3
LETTERS, SMALL_LETTERS = 112, 142  # of a line of text, as an answer and as a reason


EQUAL = "1: equal on all tokens"


@dataclass(frozen=True)
class Rectangle:
    """A part of a picture, in its pixels; a view may reach beyond it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """From top to bottom."""
        return self.bottom - self.top

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """What matplotlib's `imshow` takes."""
        return self.left, self.right, self.bottom, self.top


@dataclass(frozen=True)
class Map:
    """Numbers over the base view's cells.

    Attributes:
        name: The panel's title.
        values: (r, c).
        unit: What the numbers are in; the same for all maps on one scale.
    """

    name: str
    values: np.ndarray
    unit: str = EQUAL


@dataclass(frozen=True)
class Mask:
    """Which of the base view's cells were masked.

    Attributes:
        name: The panel's title.
        values: (r, c) bool.
    """

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Said:
    """What became of one method.

    Attributes:
        method: Its name.
        given: Options that were set, as text.
        text: Its answer, or why it did not run.
        answered: Which of the two.
    """

    method: str
    given: str
    text: str
    answered: bool


@dataclass(frozen=True)
class Explanation:
    """All that is drawn.

    Attributes:
        checkpoint: Its name.
        question: What was asked.
        picture: (y, x, 3), 0 to 255.
        view: (y, x, 3), the base view as the vision tower saw it, 0 to 1.
        seen: Where the view lies on the picture.
        layers: Attention by block.
        contrast: The contrastive map, if there is one.
        mask: What it masked, if anything could be.
        box: What ViCrop cut out, if it ran.
        said: Every method's answer.
        notes: For the small line.
    """

    checkpoint: str
    question: str
    picture: np.ndarray
    view: np.ndarray
    seen: Rectangle
    layers: tuple[Map, ...]
    contrast: Map | None
    mask: Mask | None
    box: Rectangle | None
    said: tuple[Said, ...]
    notes: tuple[str, ...] = ()


@styled
def explanation(found: Explanation) -> Figure:
    """Draws panels over the page's width and the answers below them.

    Args:
        found: What is to be drawn.

    Returns:
        The figure: the picture with ViCrop's box, a map per block, the contrastive map, the masked cells, the answers.
    """
    whole = Rectangle(0, 0, found.picture.shape[1], found.picture.shape[0])
    scales = [("attention", found.layers)]
    if found.contrast is not None:
        scales.append(("difference of attention", (found.contrast,)))
    panels = 1 + sum(len(maps) for _, maps in scales) + (found.mask is not None)
    rows, lines = -(-panels // COLUMNS), _answers(found)
    width = (PAGE - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    shape = max(found.seen.height / found.seen.width, whole.height / whole.width)
    height = TITLE + width * min(shape, TALLEST)
    below = MARGIN + rows * (height + GAP)  # where the panels end
    page = _Page(below + BAR + LINE * len(lines) + FOOT)
    places = iter(
        [
            page.at(
                MARGIN + i % COLUMNS * (width + GAP),
                MARGIN + i // COLUMNS * (height + GAP) + TITLE,
                width,
                height - TITLE,
            )
            for i in range(panels)
        ]
    )
    _picture(next(places), found, whole)
    for i, (label, maps) in enumerate(scales):
        image = _maps([next(places) for _ in maps], maps, found)
        bar = page.at(MARGIN + i * (width + GAP) + 0.05, below + 0.05, width - 0.1, 0.07)
        text = f"{label}, {maps[0].unit}"
        page.figure.colorbar(image, cax=bar, orientation="horizontal", extend="max", label=text)
    if found.mask is not None:
        _masked(next(places), found.mask, found)
    _write(page.at(MARGIN, below + BAR, PAGE - 2 * MARGIN, LINE * len(lines)), lines)
    marks = ["dashed: what the model sees"] if found.seen != whole else []
    marks += ["orange: ViCrop's box"] if found.box is not None else []
    write_caption(page.figure, (found.checkpoint, *marks, f"colours end at the {CLIPPED}th percentile", *found.notes))
    return page.figure


class _Page:
    """A figure whose parts are placed in inches from its upper left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = new_figure(PAGE, height, layout=None)

    def at(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / PAGE, bottom / self.height, width / PAGE, height / self.height))


def _panel(axes: Axes, name: str, shown: Rectangle) -> None:
    title(axes, name)
    axes.set_xlim(shown.left, shown.right)
    axes.set_ylim(shown.bottom, shown.top)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.set_aspect("equal", anchor="NW")


def _picture(axes: Axes, found: Explanation, whole: Rectangle) -> None:
    axes.imshow(found.picture, extent=whole.extent, interpolation="antialiased", gid="picture")
    seen = found.seen
    _panel(
        axes,
        "picture",
        Rectangle(min(0, seen.left), min(0, seen.top), max(whole.right, seen.right), max(whole.bottom, seen.bottom)),
    )
    axes.spines[:].set_visible(False)
    if seen != whole:
        axes.add_patch(_frame(seen, linestyle=(0, (3, 2)), edgecolor="black", clip_on=False, gid="seen"))
    if found.box is not None:
        axes.add_patch(_frame(found.box, linewidth=2.6, edgecolor="white"))
        axes.add_patch(_frame(found.box, linewidth=1.4, edgecolor=RED, gid="box"))


def _maps(panels: Sequence[Axes], maps: Sequence[Map], found: Explanation) -> AxesImage:
    """Draws maps on one scale, each over the view in light grey."""
    values = np.stack([m.values for m in maps])
    # equal weights everywhere leave the percentile at the largest value, and no weight at all at 0
    scale = Normalize(min(0.0, float(values.min())), float(np.percentile(values, CLIPPED)) or 1.0)
    grey = 0.4 + 0.6 * (found.view @ LUMINANCE)  # (y, x)
    for axes, drawn in zip(panels, maps, strict=True):
        axes.imshow(grey, extent=found.seen.extent, cmap="Greys_r", vmin=0, vmax=1, gid="view")
        axes.imshow(
            drawn.values,
            extent=found.seen.extent,
            cmap="Reds",
            norm=scale,
            alpha=0.15 + 0.8 * np.clip(scale(drawn.values), 0, 1),
            interpolation="nearest",
            gid="map",
        )
        _panel(axes, drawn.name, found.seen)
    return AxesImage(panels[0], cmap="Reds", norm=scale)  # for the colour bar, without the maps' transparency


def _masked(axes: Axes, mask: Mask, found: Explanation) -> None:
    axes.imshow(found.view, extent=found.seen.extent, interpolation="antialiased")
    rows, columns = mask.values.shape
    width, height = found.seen.width / columns, found.seen.height / rows
    for row, column in zip(*mask.values.nonzero(), strict=True):
        corner = (found.seen.left + column * width, found.seen.top + row * height)
        axes.add_patch(
            Patch(
                corner, width, height, facecolor="white", edgecolor=GREY, hatch="////////", linewidth=0.3, gid="masked"
            )
        )
    _panel(axes, mask.name, found.seen)


def _frame(where: Rectangle, **style: Any) -> Patch:
    return Patch((where.left, where.top), where.width, where.height, fill=False, **style)


# ---- text ------------------------------------------------------------------------------------------------------------
def _answers(found: Explanation) -> list[tuple[str, str, bool]]:
    """The lines below the panels: what stands at the left, what right of it, and whether it is an answer."""
    entries = [("question", found.question, True)]
    for said in found.said:
        text = " ".join(said.text.split())
        shown = f"“{text}”" if said.answered else f"not run: {text}"
        entries.append((said.method, shown + (f"   ({said.given})" if said.given else ""), said.answered))
    lines = []
    for left, text, is_answer in entries:
        wrapped = textwrap.wrap(text, LETTERS if is_answer else SMALL_LETTERS)
        lines += [(left if i == 0 else "", part, is_answer) for i, part in enumerate(wrapped)]
    return lines


def _write(axes: Axes, lines: Sequence[tuple[str, str, bool]]) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(lines), 0)
    for i, (left, right, is_answer) in enumerate(lines):
        axes.text(0, i + 0.5, left, weight="bold", va="center")
        colour, size = ("black", None) if is_answer else (GREY, SMALL)
        axes.text(0.11, i + 0.5, right, color=colour, fontsize=size, va="center")
