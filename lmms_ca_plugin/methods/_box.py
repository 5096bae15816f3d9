"""From a map over a picture's cells to the box that ViCrop cuts out.

Source: Zhang et al., "MLLMs Know Where to Look" (ViCrop); `bbox_from_att_image_adaptive` of saccharomycetes/mllms_know,
restated from its behaviour.
Rule: of windows as large as 1 to 2 views, the one whose best place stands out most from the places one step away wins;
the box is the square of that size around it, moved and clamped into the picture.
Deviates: the map lies on the pixels that its cells really cover; a window has at least one cell each way; where no
place stands out (a flat map, or room for one window only) the box is the whole picture.

Axis letters: r rows, c columns of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmms_ca_plugin.families._cells import Cells

RATIOS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
_ROUNDING = 1e-9  # window sums that differ by less than this share of the largest are equal


@dataclass(frozen=True)
class Box:
    """A part of a picture.

    Attributes:
        left: The first column of pixels inside.
        top: The first row inside.
        right: The first column of pixels outside again.
        bottom: The first row outside again.
        ratio: The window's side in views; None for the whole picture.
        sharpness: How far the window stood out, per cell; 0 for the whole picture.
    """

    left: int
    top: int
    right: int
    bottom: int
    ratio: float | None = None
    sharpness: float = 0.0

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: what Pillow's `crop` takes."""
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class Window:
    """The best place of one window size, in cells."""

    row: int
    column: int
    rows: int
    columns: int
    sharpness: float


def find_box(values: Tensor, cells: Cells, view_side: int) -> Box:
    """Finds the box to cut out.

    Args:
        values: (r, c), the map over all cells; those wholly in padding are left out of the search.
        cells: Where the map's cells lie on the picture.
        view_side: Side of a view, pixels (336): the window's side at ratio 1.

    Returns:
        The box, in whole pixels of the picture, inside it and not empty.
    """
    values = values[cells.rows.start : cells.rows.stop, cells.columns.start : cells.columns.stop].double()
    found = [
        best_window(values, rows=_fit(view_side * ratio, cells.height), columns=_fit(view_side * ratio, cells.width))
        for ratio in RATIOS
    ]
    best = max(range(len(RATIOS)), key=lambda i: found[i].sharpness)  # the first of equals
    window, ratio = found[best], RATIOS[best]
    if window.sharpness == 0:
        return Box(0, 0, *cells.picture)
    x = cells.left + (cells.columns.start + window.column + window.columns / 2) * cells.width
    y = cells.top + (cells.rows.start + window.row + window.rows / 2) * cells.height
    half = int(view_side * ratio) // 2
    left, right = _clamp(int(x), half, cells.picture[0])
    top, bottom = _clamp(int(y), half, cells.picture[1])
    return Box(left, top, right, bottom, ratio, window.sharpness)


def best_window(values: Tensor, rows: int, columns: int) -> Window:
    """Finds the place of the largest sum, one cell a step, and how far it stands out.

    Args:
        values: (r, c), the map.
        rows: Rows of the window; more than the map has means all of them.
        columns: Columns of the window, likewise.

    Returns:
        The first place of the largest sum; its sharpness is the difference to the mean of its up to four neighbours,
        per cell, and 0 where there are none or where they are equal up to rounding.
    """
    rows, columns = min(rows, values.shape[0]), min(columns, values.shape[1])
    sums = values.unfold(0, rows, 1).unfold(1, columns, 1).sum((2, 3))  # (r - rows + 1, c - columns + 1)
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    steps = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    beside = [sums[r, c] for r, c in steps if 0 <= r < sums.shape[0] and 0 <= c < sums.shape[1]]
    largest = float(sums[row, column])
    difference = largest - float(torch.stack(beside).mean()) if beside else 0.0
    if difference <= _ROUNDING * abs(largest):
        difference = 0.0
    return Window(row, column, rows, columns, difference / (rows * columns))


def _fit(window: float, cell: float) -> int:
    return max(1, int(window / cell))


def _clamp(centre: int, half: int, length: int) -> tuple[int, int]:
    """Moves a stretch of `2 * half` pixels inside `length`; takes all of it where there is not room for more."""
    if 2 * half >= length:
        return 0, length
    start = min(max(centre - half, 0), length - 2 * half)
    return start, start + 2 * half
