"""Which block contrastive attention chose as pre-integrated, by shares of a task's questions: Figure 6 of the paper.

Deviates from the paper's pies: a grid of numbers, which can be read off, compared between tasks, and printed in grey.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures._table import checked, numbers
from lmms_ca_plugin.figures.style import COLUMN, PAGE, SMALL, Caption, counted, new_figure, styled, write_caption

COLUMNS = ("task", "layer", "share", "n")
NARROW = 12  # blocks that fit a column of the paper


@styled
def chosen(table: pd.DataFrame, caption: Caption) -> Figure:
    """Draws a row per task and a column per block, each cell with its share in percent; a block never chosen is empty.

    Args:
        table: Columns `task`, `layer`, `share` (0 to 1, of a task's questions), and `n`, how many these are.
        caption: The checkpoint.

    Returns:
        The figure, a column wide for up to 12 blocks, else a page.

    Raises:
        InputError: Columns are missing, a pair is there twice, or shares are none.
    """
    rows = checked(table, "chosen", COLUMNS)
    twice = rows[rows.duplicated(["task", "layer"])]
    if len(twice):
        raise InputError(f"chosen: task {twice.iloc[0]['task']} has layer {twice.iloc[0]['layer']} twice.")
    sums = rows.groupby("task", sort=False)["share"].sum()
    if rows["share"].lt(0).any() or sums.gt(1 + 1e-6).any():
        raise InputError(
            f"chosen: shares of task {sums.idxmax()} sum to {sums.max():g}. Allowed: parts of 1, not percent, each of "
            "one method's questions."
        )
    shares = rows.pivot(index="task", columns="layer", values="share").reindex(sums.index).fillna(0.0)
    count, layers = shares.shape
    figure = new_figure(COLUMN if layers <= NARROW else PAGE, 0.22 * count + 0.75)
    axes = figure.subplots()
    image = axes.imshow(shares * 100, cmap="Greys", vmin=0, vmax=100, aspect="auto")
    percents = 100 * shares.to_numpy(dtype=float)
    for row, column in zip(*percents.nonzero(), strict=True):
        percent = percents[row, column]
        text = "<1" if percent < 0.5 else f"{percent:.0f}"
        colour = "white" if percent > 50 else "black"
        axes.text(column, row, text, color=colour, fontsize=SMALL, ha="center", va="center")
    axes.set_xticks(range(layers), [f"{layer:g}" for layer in shares.columns])
    axes.set_yticks(range(count), list(shares.index))
    axes.tick_params(length=0)
    axes.set_xlabel("pre-integrated block")
    axes.set_xticks([x - 0.5 for x in range(1, layers)], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, count)], minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(True)
    figure.colorbar(image, ax=axes, pad=0.01, aspect=max(4 * count, 8), ticks=[0, 50, 100], label="questions, %")
    write_caption(figure, (caption.checkpoint, counted(numbers(rows))))
    return figure
