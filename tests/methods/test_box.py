"""The box search on hand-made maps, and the tiles of large pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_ca_plugin.families._cells import Cells, cells_of, centre, whole
from lmms_ca_plugin.methods._box import RATIOS, Box, best_window, find_box
from lmms_ca_plugin.methods._tiles import join, tiles

GRID = (24, 24)
VIEW = 336


def squashed(size):
    return cells_of(size, whole(size), GRID)


def padded(size):
    """The cells of a picture in the middle of a square."""
    width, height = size
    side = max(size)
    square = cells_of((side, side), whole((side, side)), GRID)
    return square.moved((side - width) // 2, (side - height) // 2, size)


def blob(row, column, height=1, width=1, shape=GRID):
    values = torch.full(shape, 0.01, dtype=torch.float64)
    values[row : row + height, column : column + width] = 1.0
    return values


def contains(box: Box, x: float, y: float) -> bool:
    return box.left <= x < box.right and box.top <= y < box.bottom


# ---- places ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row", "column", "corners"),
    [(0, 0, (0, 0)), (0, 23, (1, 0)), (23, 0, (0, 1)), (23, 23, (1, 1))],
)
@pytest.mark.parametrize("size", [(1200, 1200), (1600, 900), (900, 1600)])
def test_a_peak_in_a_corner_gives_a_box_in_that_corner(row, column, corners, size):
    box = find_box(blob(row, column), squashed(size), VIEW)
    width, height = size
    assert (box.left == 0, box.right == width) == (corners[0] == 0, corners[0] == 1)
    assert (box.top == 0, box.bottom == height) == (corners[1] == 0, corners[1] == 1)
    assert box.right - box.left == box.bottom - box.top == VIEW


@pytest.mark.parametrize(("row", "column", "side"), [(0, 12, "top"), (23, 12, "bottom"), (12, 0, "left")])
def test_a_peak_at_an_edge_gives_a_box_at_that_edge(row, column, side):
    box = find_box(blob(row, column), squashed((1200, 1200)), VIEW)
    assert getattr(box, side) == {"top": 0, "left": 0, "bottom": 1200}[side]
    assert contains(box, column * 50 + 25, row * 50 + 25)


def test_a_blob_of_the_windows_size_is_cut_out_centred():
    # A cell is 56 pixels, so that a window of ratio 1 is 6 cells: columns 9..14 have their centre at 12 * 56.
    box = find_box(blob(3, 9, 6, 6), squashed((1344, 1344)), VIEW)
    assert (box.ratio, box.corners) == (1.0, (504, 168, 840, 504))
    assert box.sharpness == pytest.approx((36 - (30 + 6 * 0.01)) / 36)


@pytest.mark.parametrize(("cells", "ratio"), [(6, 1.0), (7, 1.2), (8, 1.4), (9, 1.6), (10, 1.8), (12, 2.0)])
def test_the_window_is_as_large_as_what_stands_out(cells, ratio):
    values = blob(5, 7, cells, cells)
    values[5 + cells // 2, 7 + cells // 2] += 0.5  # so that no small window stands out at the blob's corner
    assert find_box(values, squashed((1344, 1344)), VIEW).ratio == ratio


def test_a_broad_hill_takes_a_larger_window():
    # Flat at the top and steepest 5 to 6 cells from its middle; a cell is 56 pixels, so 10 cells are 1.8 views.
    away = (torch.arange(24, dtype=torch.float64) - 11.5) / 6
    hill = (1 - (away**8)[:, None] - (away**8)[None, :]).clamp(min=0)
    box = find_box(hill, squashed((1344, 1344)), VIEW)
    assert (box.ratio, box.corners) == (1.8, (370, 370, 974, 974))


@pytest.mark.parametrize(("size", "row", "column"), [((2400, 1200), 8, 3), ((1200, 2400), 3, 8)])
def test_on_a_padded_page_the_box_lies_where_the_cell_is_on_the_page(size, row, column):
    cells = padded(size)
    box = find_box(blob(row, column), cells, VIEW)
    assert contains(box, cells.left + (column + 0.5) * 100, cells.top + (row + 0.5) * 100)
    # Laid over the whole page, the same map means another place.
    assert find_box(blob(row, column), squashed(size), VIEW).corners != box.corners


@pytest.mark.parametrize(("size", "row", "column"), [((2400, 1200), 2, 12), ((1200, 2400), 12, 21)])
def test_a_peak_in_the_padding_counts_for_nothing(size, row, column):
    flat = torch.full(GRID, 0.01)
    flat[row, column] = 1.0
    assert find_box(flat, padded(size), VIEW) == Box(0, 0, *size)


def test_of_a_centre_crop_only_the_middle_can_be_found():
    cells = cells_of((1600, 800), centre((1600, 800), 336, (336, 336)), GRID)
    assert find_box(blob(12, 0), cells, VIEW).left == pytest.approx(400 - 168 + 800 / 24, abs=800 / 24 * 10)
    assert find_box(blob(0, 23, 10, 1), cells, VIEW).right <= 1200 + 168


# ---- nothing to find -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3, 1e9])
@pytest.mark.parametrize("size", [(1200, 1200), (1601, 907), (4000, 1)])
def test_a_flat_map_gives_the_whole_picture(value, size):
    for cells in (squashed(size), padded(size)):
        assert find_box(torch.full(GRID, value, dtype=torch.float64), cells, VIEW) == Box(0, 0, *size, None, 0.0)


def test_a_map_that_is_flat_up_to_rounding_is_flat():
    noise = torch.rand(GRID, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert find_box(1 + 1e-13 * noise, squashed((1200, 1200)), VIEW) == Box(0, 0, 1200, 1200)
    assert find_box(1 + 1e-6 * noise, squashed((1200, 1200)), VIEW).ratio is not None


@pytest.mark.parametrize("size", [(336, 336), (100, 336), (336, 20), (1, 1), (3, 5)])
def test_a_picture_no_larger_than_a_view_is_taken_whole(size):
    assert find_box(blob(0, 0), squashed(size), VIEW) == Box(0, 0, *size)


def test_a_picture_a_little_larger_than_a_view_leaves_the_larger_windows_out():
    box = find_box(blob(0, 0), squashed((400, 400)), VIEW)
    assert (box.ratio, box.corners) == (1.0, (0, 0, 336, 336))  # at 1.2 the one window has no neighbour


@pytest.mark.parametrize("column", [0, 11, 23])
def test_a_line_of_one_pixel_is_searched_along_its_length(column):
    cells = padded((4000, 1))
    box = find_box(blob(cells.rows[0], column), cells, VIEW)
    assert (box.top, box.bottom) == (0, 1)
    assert box.right - box.left == 336
    assert contains(box, (column + 0.5) * 4000 / 24, 0)


@pytest.mark.parametrize("row", [0, 23])
def test_a_column_of_one_pixel_is_searched_along_its_length(row):
    cells = padded((1, 4000))
    box = find_box(blob(row, cells.columns[0]), cells, VIEW)
    assert (box.left, box.right, box.bottom - box.top) == (0, 1, 336)
    assert contains(box, 0, (row + 0.5) * 4000 / 24)


def test_a_cell_larger_than_the_window_is_a_window_of_one_cell():
    box = find_box(blob(5, 6), squashed((24 * 700, 24 * 700)), VIEW)
    assert (box.ratio, box.corners) == (1.0, (6 * 700 + 182, 5 * 700 + 182, 6 * 700 + 518, 5 * 700 + 518))


# ---- the window ------------------------------------------------------------------------------------------------------
def test_sharpness_is_the_distance_to_the_neighbours_that_exist():
    values = torch.tensor([[5.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    window = best_window(values, 1, 1)
    assert (window.row, window.column, window.sharpness) == (0, 0, 5 - (1 + 3) / 2)
    window = best_window(values, 2, 1)
    assert (window.row, window.column, window.sharpness) == (0, 0, (8 - 1) / 2)
    assert best_window(values, 2, 3).sharpness == best_window(values, 9, 9).sharpness == 0


def test_of_equal_windows_the_first_is_taken():
    values = torch.zeros(4, 4)
    values[1, 2] = values[3, 0] = 1
    window = best_window(values, 1, 1)
    assert (window.row, window.column) == (1, 2)


def naive_box(values: np.ndarray, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], float]:
    """The search as the paper's text has it, cell by cell, for a map over the whole picture."""
    rows, columns = values.shape
    best = (0.0, (0, 0, *size))
    for ratio in RATIOS:
        cell = size[0] / columns, size[1] / rows
        nx = max(1, min(int(VIEW * ratio / cell[0]), columns))
        ny = max(1, min(int(VIEW * ratio / cell[1]), rows))
        sums = {
            (y, x): sum(values[y + j, x + i] for j in range(ny) for i in range(nx))
            for y in range(rows - ny + 1)
            for x in range(columns - nx + 1)
        }
        y, x = max(sums, key=lambda place: sums[place])
        near = [sums[p] for p in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if p in sums]
        sharpness = (sums[y, x] - sum(near) / len(near)) / (nx * ny) if near else 0.0
        if sharpness > best[0]:
            half = int(VIEW * ratio) // 2
            box = []
            for at, length in ((int((x + nx / 2) * cell[0]), size[0]), (int((y + ny / 2) * cell[1]), size[1])):
                at = min(max(at, half), length - half) if length > 2 * half else length // 2
                box.append((max(0, at - half), min(length, at + half)) if length > 2 * half else (0, length))
            best = (sharpness, (box[0][0], box[1][0], box[0][1], box[1][1]))
    return best[1], best[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(640, 480), (1700, 2200), (336, 900), (300, 2000)])
def test_the_search_is_the_naive_search(seed, size):
    values = np.random.default_rng(seed).gamma(0.3, size=(12, 12))
    box = find_box(torch.from_numpy(values), cells_of(size, whole(size), (12, 12)), VIEW)
    corners, sharpness = naive_box(values, size)
    assert box.corners == corners
    assert box.sharpness == pytest.approx(sharpness)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.sampled_from([squashed, padded]),
    st.integers(0, 2**31),
)
def test_every_box_lies_inside_its_picture(size, place, seed):
    box = find_box(torch.rand(GRID, generator=torch.Generator().manual_seed(seed)), place(size), VIEW)
    assert 0 <= box.left < box.right <= size[0]
    assert 0 <= box.top < box.bottom <= size[1]
    if box.ratio is not None:
        side = int(VIEW * box.ratio) // 2 * 2
        assert (box.right - box.left, box.bottom - box.top) == (min(side, size[0]), min(side, size[1]))


# ---- tiles -----------------------------------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None)
@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
def test_tiles_cover_the_picture_once_and_are_small_enough(size):
    parts = tiles(size)
    assert sum((p.right - p.left) * (p.bottom - p.top) for p in parts) == size[0] * size[1]
    assert all(0 < p.right - p.left <= 1024 and 0 < p.bottom - p.top <= 1024 for p in parts)
    assert len(parts) == -(-size[0] // 1024) * -(-size[1] // 1024)
    assert parts == sorted(parts, key=lambda p: (p.top, p.left))


@pytest.mark.parametrize(
    ("size", "number"), [((1, 1), 1), ((1024, 1024), 1), ((600, 1000), 1), ((4000, 1), 4), ((1025, 1024), 2)]
)
def test_a_picture_has_a_tile_each_way(size, number):
    assert len(tiles(size)) == number


def test_one_tile_keeps_its_map():
    values = torch.rand(GRID)
    assert join([values], [padded((800, 600))], tiles((800, 600)), (800, 600)) == (values, padded((800, 600)))


def test_squashed_tiles_are_laid_side_by_side():
    parts = tiles((1600, 2000))
    maps = [torch.rand(4, 4, dtype=torch.float64) for _ in parts]
    cells = [cells_of((800, 1000), whole((800, 1000)), (4, 4)) for _ in parts]
    joined, on = join(maps, cells, parts, (1600, 2000))
    torch.testing.assert_close(joined, torch.cat([torch.cat(maps[:2], 1), torch.cat(maps[2:], 1)]))
    assert on == Cells((1600, 2000), (8, 8), 200.0, 250.0)


def test_padding_between_tiles_is_left_out():
    # Two tiles of 1000 x 500, each in the middle of a square: a peak in the first row of the lower one.
    parts = tiles((1000, 1500))
    assert [(p.top, p.bottom) for p in parts] == [(0, 750), (750, 1500)]
    cells = [padded((1000, 750)) for _ in parts]
    maps = [torch.zeros(GRID, dtype=torch.float64), torch.zeros(GRID, dtype=torch.float64)]
    maps[1][3, 5] = 1.0  # the padding is 125 of 1000 pixels: 3 rows of 41.7
    maps[0][1, 5] = maps[0][22, 5] = 9.0  # in the padding
    joined, on = join(maps, cells, parts, (1000, 1500))
    assert on == Cells((1000, 1500), (36, 24), 1000 / 24, 1500 / 36)
    assert joined[18, 5] == pytest.approx(1.0)
    assert joined.sum() == pytest.approx(1.0)


def test_what_no_tile_shows_counts_as_nothing():
    # A centre crop of a 1000 x 500 tile shows its middle 500 pixels.
    parts = tiles((1000, 1500), most=1000)
    cells = [cells_of((1000, 750), centre((1000, 750), 336, (336, 336)), (4, 4)) for _ in parts]
    joined, on = join([torch.ones(4, 4)] * 2, cells, parts, (1000, 1500))
    assert on.grid == (8, 5)
    assert joined[:, 0].tolist() == pytest.approx([0.375] * 8)  # 75 of 200 pixels
    assert joined[:, 1:4].unique().tolist() == pytest.approx([1.0])


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(1025, 4000), st.integers(1, 4000)), st.integers(0, 2**31))
def test_joining_keeps_the_mean_over_the_picture(size, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = tiles(size)
    maps = [torch.rand(4, 4, generator=generator, dtype=torch.float64) for _ in parts]
    cells = [cells_of(s, whole(s), (4, 4)) for s in ((p.right - p.left, p.bottom - p.top) for p in parts)]
    joined, on = join(maps, cells, parts, size)
    areas = torch.tensor([(p.right - p.left) * (p.bottom - p.top) for p in parts], dtype=torch.float64)
    means = torch.stack([m.mean() for m in maps])
    assert float(joined.mean()) == pytest.approx(float((means * areas).sum() / areas.sum()))
    assert on.picture == size
