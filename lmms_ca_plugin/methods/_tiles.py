"""A large picture cut into tiles, and the tiles' maps joined into one.

Source: `high_res_split_threshold` and `high_res` of saccharomycetes/mllms_know, restated from their behaviour.
Deviates: its number of columns follows from the number of rows by the aspect ratio, so that a tile may be nearly twice
as wide as the limit, and a wide or narrow picture may get no column at all. Here each side is divided for itself, into
the fewest equal parts within the limit. A tile that is padded or cropped on its way to the vision tower covers other
pixels than its own 24 x 24 cells, so the maps are not laid side by side but drawn onto one grid over the picture.

Axis letters: r rows, c columns of the joined map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lmms_ca_plugin.families._cells import Cells
from lmms_ca_plugin.methods._box import Box

TILE_SIDE = 1024


def tiles(picture: tuple[int, int], most: int = TILE_SIDE) -> list[Box]:
    """Divides a picture into the fewest tiles of nearly equal size.

    Args:
        picture: Width and height, pixels.
        most: The longest side a tile may have.

    Returns:
        The tiles, row by row; one at least.
    """
    columns, rows = (_cuts(length, most) for length in picture)
    return [Box(left, top, right, bottom) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


def join(
    maps: Sequence[Tensor], cells: Sequence[Cells], parts: Sequence[Box], picture: tuple[int, int]
) -> tuple[Tensor, Cells]:
    """Draws the tiles' maps onto one grid of cells over the whole picture.

    Args:
        maps: One map per tile.
        cells: Where each map's cells lie on its tile.
        parts: The tiles.
        picture: The picture's width and height.

    Returns:
        The joined map (r, c) and its cells. A cell's value is the mean of the map over its area; what no tile shows
        counts as 0. One tile stays as it is.
    """
    if len(parts) == 1:
        return maps[0], cells[0]
    columns = _count(picture[0], [c.width for c in cells])
    rows = _count(picture[1], [c.height for c in cells])
    joined = Cells(picture, (rows, columns), picture[0] / columns, picture[1] / rows)
    total = torch.zeros(rows, columns, dtype=torch.float64)
    for values, of, part in zip(maps, cells, parts, strict=True):
        down = _overlap(part.top + of.top, of.height, of.grid[0], (part.top, part.bottom), joined.height, rows)
        right = _overlap(part.left + of.left, of.width, of.grid[1], (part.left, part.right), joined.width, columns)
        total += down @ values.double().cpu() @ right.T
    return total, joined


def _cuts(length: int, most: int) -> list[int]:
    number = math.ceil(length / most)
    return [length * i // number for i in range(number + 1)]


def _count(length: int, sides: Sequence[float]) -> int:
    return max(1, round(length / (sum(sides) / len(sides))))


def _overlap(start: float, side: float, number: int, part: tuple[int, int], joined_side: float, joined: int) -> Tensor:
    """Says which share of each joined cell each cell of a tile covers, along one axis: (joined, number)."""
    edges = (start + side * torch.arange(number + 1, dtype=torch.float64)).clamp(*map(float, part))  # (number + 1,)
    onto = joined_side * torch.arange(joined + 1, dtype=torch.float64)  # (joined + 1,)
    low = torch.maximum(edges[None, :-1], onto[:-1, None])
    high = torch.minimum(edges[None, 1:], onto[1:, None])
    return (high - low).clamp(min=0) / joined_side
