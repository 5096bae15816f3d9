"""How all figures look: fonts for a paper's column, colours for the colour-blind, shapes for grey print.

Source of the colours: Okabe and Ito, "Color Universal Design" (2008). No curve is told apart by its colour alone: each
has a marker and, as far as there are any, a line style of its own.
Rule: settings hold inside `styled` functions only; a notebook's own are left as they are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLUMN, PAGE = 3.33, 7.0  # inches: one column, and both, of a two-column paper
ORANGE, SKY, GREEN, BLUE, RED, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"
SMALL = 5.5  # points: captions, and numbers inside cells

SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 2.4,
    "figure.constrained_layout.h_pad": 0.06,  # inches
    "hatch.linewidth": 0.3,
    "text.parse_math": False,  # a dollar sign in an answer is a dollar sign
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "lmms-ca",  # names inside the file are random without it
}
styled = rc_context(SETTINGS)


@dataclass(frozen=True)
class Line:
    """How one curve is drawn."""

    colour: str
    marker: str
    dashes: str


LINES = (
    Line(BLUE, "o", "-"),
    Line(RED, "s", "--"),
    Line(GREEN, "^", ":"),
    Line(PURPLE, "D", "-."),
    Line(ORANGE, "v", "-"),
    Line(SKY, "P", "--"),
)


@dataclass(frozen=True)
class Shade:
    """How blocks are marked, behind the curves."""

    colour: str
    hatch: str | None


SHADES = (Shade(SKY, None), Shade(PURPLE, "...."), Shade(ORANGE, "////"))


@dataclass(frozen=True)
class Caption:
    """What the small line under a figure says.

    Attributes:
        checkpoint: Whose numbers these are.
        interval: The kind of the intervals drawn, e.g. `95 % intervals, clustered by picture`.
    """

    checkpoint: str
    interval: str = ""


@dataclass(frozen=True)
class Grid:
    """Small multiples: how many rows and columns for a number of panels, and how wide the figure is, in inches."""

    rows: int
    columns: int
    width: float

    @classmethod
    def of(cls, panels: int) -> Grid:
        """One panel fits a column of the paper; more stand side by side over the page, two or three."""
        columns = {1: 1, 2: 2, 4: 2}.get(panels, 3)
        return cls(-(-panels // columns), columns, COLUMN if panels == 1 else PAGE)

    def is_bottom(self, panel: int, panels: int) -> bool:
        """Whether no panel stands below this one."""
        return panel + self.columns >= panels


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of a size in inches, drawn by Agg, that pyplot knows nothing of."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def write_caption(figure: Figure, parts: Sequence[str]) -> None:
    """Writes the small line under a figure, wrapped to its width; empty parts are left out."""
    text = "; ".join(part for part in parts if part).replace(" %", "\u00a0%")  # a number keeps its sign beside it
    # constrained layout keeps room for this label alone, whatever it holds
    figure.supxlabel(wrapped(text, figure.get_figwidth(), SMALL), fontsize=SMALL, color=GREY, x=0.01, ha="left")


def wrapped(text: str, width: float, size: float) -> str:
    """Breaks a text into lines of a width in inches; a letter is about 0.55 of its size in points wide."""
    return textwrap.fill(text, int(width * 72 / (0.55 * size)))


def counted(numbers: dict[str, tuple[int, int]]) -> str:
    """Says how many questions there are: once if all tasks have as many, else task by task.

    Args:
        numbers: The smallest and the largest number by task.
    """
    texts = {task: f"{low:,}" if low == high else f"{low:,} to {high:,}" for task, (low, high) in numbers.items()}
    if len(set(texts.values())) == 1:
        return f"n = {next(iter(texts.values()))}{' per task' if len(texts) > 1 else ''}"
    return "n = " + ", ".join(f"{text} ({task})" for task, text in texts.items())


def whole_ticks(axes: Axes) -> None:
    """Keeps x at whole numbers: there is no block 2.5."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def title(axes: Axes, text: str) -> None:
    """Names a panel, at its left edge."""
    axes.set_title(text, loc="left")
