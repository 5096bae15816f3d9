"""Paired differences to vanilla with their intervals, one line per variant and one panel per task: controls, scopes."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures._table import checked, numbers, one_metric
from lmms_ca_plugin.figures.style import BLUE, Caption, Grid, counted, new_figure, styled, title, write_caption
from lmms_ca_plugin.results.multiplicity import ALPHA
from lmms_ca_plugin.results.schema import BASELINE

COLUMNS = ("variant", "task", "metric", "n", "delta", "delta_ci95_low", "delta_ci95_high", "p_holm")
NARROWEST = 1.0  # points each way, so that hundredths of a point do not fill a panel


@styled
def differences(table: pd.DataFrame, caption: Caption, *, baseline: str = BASELINE) -> Figure:
    """Draws every variant's difference to vanilla, or to another baseline.

    A filled marker is significant after Holm's adjustment.

    Args:
        table: Columns `variant`, `task`, `metric`, `n`, `delta`, `delta_ci95_low`, `delta_ci95_high` (percent) and
            `p_holm`; one row per variant and task. Vanilla's own rows are left out, an interval that is empty too.
        caption: Checkpoint, and the intervals' kind.
        baseline: The variant that differences are to, for the axis.

    Returns:
        The figure, a column or a page wide.

    Raises:
        InputError: Columns are missing, a task has several metrics, or there is no variant with a difference.
    """
    rows = checked(table, "differences", COLUMNS)
    rows = rows[rows["variant"] != BASELINE].dropna(subset=["delta"])
    if rows.empty:
        raise InputError("differences: no variant beside vanilla has a delta, so there is nothing to draw.")
    metrics = one_metric(rows, "differences")
    variants = list(dict.fromkeys(rows["variant"]))
    places = {variant: place for place, variant in enumerate(variants)}
    grid = Grid.of(len(metrics))
    figure = new_figure(grid.width, grid.rows * (0.16 * len(variants) + 0.5) + 0.5)
    panels = figure.subplots(grid.rows, grid.columns, squeeze=False, sharex=True, sharey=True).flat
    for i, (axes, (task, metric)) in enumerate(zip(panels, metrics.items(), strict=False)):
        mine = rows[rows["task"] == task]
        heights = mine["variant"].map(places)
        axes.axvline(0, color="black", linewidth=0.8, linestyle=(0, (5, 2)))
        axes.hlines(heights, mine["delta_ci95_low"], mine["delta_ci95_high"], color=BLUE, linewidth=1.0)
        fill = ["full" if p < ALPHA else "none" for p in mine["p_holm"]]
        for x, y, style in zip(mine["delta"], heights, fill, strict=True):
            axes.plot(x, y, marker="o", markersize=3.6, color=BLUE, fillstyle=style, markerfacecoloralt="white")
        title(axes, f"{task}, {metric}")
        axes.set_yticks(range(len(variants)), variants)
        axes.set_ylim(len(variants) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.4)
        axes.set_axisbelow(True)
        if grid.is_bottom(i, len(metrics)):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(f"difference to {baseline}, points")
    low, high = figure.axes[0].get_xlim()  # of all panels, once all are drawn
    figure.axes[0].set_xlim(min(low, -NARROWEST), max(high, NARROWEST))
    for axes in panels:
        axes.remove()
    marked = f"filled: Holm-adjusted p < {ALPHA:g}"
    write_caption(figure, (caption.checkpoint, counted(numbers(rows)), caption.interval, marked))
    return figure
