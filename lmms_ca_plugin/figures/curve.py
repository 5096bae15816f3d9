"""Score, and seconds where the table has them, against a block or a share: Figures 2, 3 and 7 of the paper, per task.

Deviates from the paper's: every point has its interval, vanilla is a line with a band of its own, and time is seconds
per question instead of its inverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures._table import checked, numbers, one_metric
from lmms_ca_plugin.figures.style import (
    COLUMN,
    GREY,
    LINES,
    SETTINGS,
    SHADES,
    Caption,
    Grid,
    Line,
    counted,
    new_figure,
    styled,
    title,
    whole_ticks,
    wrapped,
    write_caption,
)
from lmms_ca_plugin.results.schema import BASELINE

COLUMNS = ("variant", "method", "x", "task", "metric", "score", "ci95_low", "ci95_high", "n")
SCORE, TIME = 1.35, 0.75  # inches, heights of the two panels of a task
PANEL = 0.85  # of a column of the grid; the rest is for what stands left of the axis
DODGE = 0.2  # of the distance between two points, by which several methods' points stand apart


@styled
def curve(
    table: pd.DataFrame, caption: Caption, *, x_label: str, blocks: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> Figure:
    """Draws one panel per task, and a second one below it where the table has times.

    Args:
        table: Columns `variant`, `method`, `x`, `task`, `metric`, `score`, `ci95_low`, `ci95_high`, `n`, and, if it was
            measured, `seconds_per_question`; one row per point, scores in percent. Each method is a curve. The row of
            variant `vanilla`, whose x is empty, is a horizontal line; an interval that is empty is left out.
        caption: Checkpoint, and the intervals' kind.
        x_label: What x is.
        blocks: Blocks to shade where x is a block, by what they are called; at most three kinds.

    Returns:
        The figure, a column or a page wide.

    Raises:
        InputError: Columns are missing, a task has several metrics or no point, or there are too many methods.
    """
    rows = checked(table, "curve", COLUMNS, optional=("seconds_per_question",))
    metrics = one_metric(rows, "curve")
    points = rows[rows["variant"] != BASELINE].dropna(subset=["x"])
    empty = [task for task in metrics if task not in set(points["task"])]
    if empty:
        raise InputError(f"curve: no row of task {empty[0]} has an x, so it has no curve. Needed: variants with an x.")
    methods = list(dict.fromkeys(points["method"]))
    if len(methods) > len(LINES):
        raise InputError(f"curve: {len(methods)} methods are more than one can tell apart. Allowed: {len(LINES)}.")
    lines = dict(zip(methods, LINES, strict=False))
    timed = bool(points["seconds_per_question"].notna().any())
    grid = Grid.of(len(metrics))
    figure = new_figure(grid.width, grid.rows * (SCORE + timed * TIME) + 0.7)
    cells = figure.add_gridspec(grid.rows, grid.columns)
    uppers: list[Axes] = []
    for i, (task, metric) in enumerate(metrics.items()):
        heights = [SCORE, TIME] if timed else [SCORE]
        parts = cells[i // grid.columns, i % grid.columns].subgridspec(len(heights), 1, height_ratios=heights)
        upper = figure.add_subplot(parts[0])
        mine, vanilla = points[points["task"] == task], rows[(rows["task"] == task) & (rows["variant"] == BASELINE)]
        _scores(upper, mine, vanilla, lines)
        _shade(upper, blocks)
        uppers.append(upper)
        title(upper, f"{task}, {metric}")
        lowest = upper
        if timed:
            lowest = figure.add_subplot(parts[1], sharex=upper)
            _times(lowest, mine, vanilla, lines)
            upper.tick_params(labelbottom=False)
        if (points["x"] % 1 == 0).all():
            whole_ticks(lowest)
        if grid.is_bottom(i, len(metrics)):
            lowest.set_xlabel(wrapped(x_label, PANEL * grid.width / grid.columns, SETTINGS["axes.labelsize"]))
        if i % grid.columns == 0:
            upper.set_ylabel("score, %")
            if timed:
                lowest.set_ylabel("s / question")
    _span_alike(uppers)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 3 if grid.width == COLUMN else 6))
    drawn = f"bars and band: {caption.interval}" if caption.interval else ""
    write_caption(figure, (caption.checkpoint, counted(numbers(rows)), drawn))
    return figure


def _span_alike(panels: Sequence[Axes]) -> None:
    """Lets a point of score be as high in every panel."""
    most = max(high - low for low, high in (axes.get_ylim() for axes in panels))
    for axes in panels:
        middle = sum(axes.get_ylim()) / 2
        axes.set_ylim(middle - most / 2, middle + most / 2)


def _scores(axes: Axes, points: pd.DataFrame, vanilla: pd.DataFrame, lines: dict[str, Line]) -> None:
    for score, low, high in vanilla[["score", "ci95_low", "ci95_high"]].to_numpy(float):
        axes.axhspan(low, high, color=GREY, alpha=0.2, linewidth=0, gid="vanilla interval")
        axes.axhline(score, color="black", linestyle=(0, (5, 2)), linewidth=0.8, label=BASELINE, zorder=3)
    gaps = points["x"].drop_duplicates().sort_values().diff().dropna()
    step = gaps.min() if len(gaps) else 1.0
    for method, rows in points.groupby("method", sort=False):
        line, rows = lines[str(method)], rows.sort_values("x")
        beside = DODGE * (list(lines).index(str(method)) - (len(lines) - 1) / 2)  # intervals must not hide one another
        rows = rows.assign(x=rows["x"] + beside * step)
        known = rows.dropna(subset=["ci95_low", "ci95_high"])
        axes.plot(
            rows["x"], rows["score"], color=line.colour, marker=line.marker, linestyle=line.dashes, label=str(method)
        )
        axes.vlines(
            known["x"], known["ci95_low"], known["ci95_high"], color=line.colour, linewidth=0.7, gid="intervals"
        )


def _shade(axes: Axes, blocks: Mapping[str, Sequence[int]]) -> None:
    for (kind, of_kind), shade in zip(blocks.items(), SHADES[: len(blocks)], strict=True):
        for i, block in enumerate(of_kind):
            axes.axvspan(
                block - 0.5,
                block + 0.5,
                facecolor=shade.colour,
                alpha=0.3,
                hatch=shade.hatch,
                linewidth=0,
                zorder=0,
                label=kind if i == 0 else None,
                gid=f"{kind} {block}",
            )


def _times(axes: Axes, points: pd.DataFrame, vanilla: pd.DataFrame, lines: dict[str, Line]) -> None:
    for seconds in vanilla["seconds_per_question"].dropna():
        axes.axhline(seconds, color="black", linestyle=(0, (5, 2)), linewidth=0.8)
    for method, rows in points.dropna(subset=["seconds_per_question"]).groupby("method", sort=False):
        line, rows = lines[str(method)], rows.sort_values("x")
        axes.plot(rows["x"], rows["seconds_per_question"], color=line.colour, marker=line.marker, linestyle=line.dashes)
    slowest = max(points["seconds_per_question"].max(), vanilla["seconds_per_question"].max())
    axes.set_ylim(0, 1.1 * slowest if slowest > 0 else None)
