"""How far every block's attention over the picture is from one block's: Figure 5 of the paper, per task."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.figures._table import checked
from lmms_ca_plugin.figures.style import (
    BLUE,
    Caption,
    Grid,
    counted,
    new_figure,
    styled,
    title,
    whole_ticks,
    write_caption,
)

COLUMNS = ("task", "layer", "distance")
HEIGHT = 1.35  # inches, of a task's panel


@styled
def distances(
    table: pd.DataFrame, caption: Caption, *, y_label: str = "Hellinger distance", to_block: int | None = None
) -> Figure:
    """Draws one panel per task: the mean over its questions, and a band from quartile to quartile.

    Args:
        table: Columns `task`, `layer`, `distance`; one row per question and block.
        caption: The checkpoint.
        y_label: Which distance it is.
        to_block: The block that all are compared with; None is the last, as in the paper.

    Returns:
        The figure, a column or a page wide; all panels have the same scale.

    Raises:
        InputError: Columns are missing, or the table is empty.
    """
    rows = checked(table, "distances", COLUMNS)
    tasks = list(dict.fromkeys(rows["task"]))
    grid = Grid.of(len(tasks))
    figure = new_figure(grid.width, grid.rows * HEIGHT + 0.6)
    panels = figure.subplots(grid.rows, grid.columns, squeeze=False, sharex=True, sharey=True).flat
    first = figure.axes[0]
    sizes: dict[str, tuple[int, int]] = {}
    for i, (axes, task) in enumerate(zip(panels, tasks, strict=False)):
        by_layer = rows[rows["task"] == task].groupby("layer")["distance"]
        sizes[task] = (int(by_layer.count().min()), int(by_layer.count().max()))
        low, mean, high = by_layer.quantile(0.25), by_layer.mean(), by_layer.quantile(0.75)
        axes.fill_between(mean.index, low, high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(mean.index, mean, color=BLUE, marker="o", clip_on=False)  # one block's own distance is 0
        whole_ticks(axes)
        title(axes, str(task))
        if grid.is_bottom(i, len(tasks)):
            axes.set_xlabel("block")
            axes.tick_params(labelbottom=True)
        if i % grid.columns == 0:
            axes.set_ylabel(y_label)
    first.set_ylim(bottom=0)  # of all panels, and not before the last is drawn: it ends their own scaling
    for axes in panels:
        axes.remove()
    last = f"{rows['layer'].max():g}, the last"
    to = f"distances to block {last if to_block is None else to_block}"  # a longer label would outgrow its panel
    write_caption(figure, (caption.checkpoint, counted(sizes), to, "line: mean; band: first to third quartile"))
    return figure
