"""Where the cells of a view lie on the picture: the vision tower's patches, in the picture's own pixels.

A view is what the vision tower sees of a picture. It may show a border around it (padding), or not all of it (a centre
crop), so a map over its cells says something about other pixels than a grid over the whole picture would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_HAIR = 1e-6  # pixels; less of the picture than this in a cell is a rounding error


@dataclass(frozen=True)
class Seen:
    """The rectangle of a picture that a view shows, in the picture's pixels; it may reach beyond the picture."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Cells:
    """A grid of cells on a picture; cell (row, column) begins at `left + column * width`, `top + row * height`.

    Attributes:
        picture: The picture's width and height, pixels.
        grid: Rows and columns of cells.
        width: A cell's width in the picture's pixels.
        height: A cell's height in the picture's pixels.
        left: Where the first column begins; negative where the view begins with a border.
        top: Where the first row begins; negative where the view begins with a border.
    """

    picture: tuple[int, int]
    grid: tuple[int, int]
    width: float
    height: float
    left: float = 0.0
    top: float = 0.0

    @property
    def columns(self) -> range:
        """The columns that show any of the picture; the others lie wholly in padding."""
        return _inside(self.left, self.width, self.grid[1], self.picture[0])

    @property
    def rows(self) -> range:
        """The rows that show any of the picture; the others lie wholly in padding."""
        return _inside(self.top, self.height, self.grid[0], self.picture[1])

    def moved(self, left: float, top: float, picture: tuple[int, int]) -> Cells:
        """Takes the same cells on a picture that begins `left`, `top` pixels further right and down."""
        return replace(self, picture=picture, left=self.left - left, top=self.top - top)


def cells_of(picture: tuple[int, int], seen: Seen, grid: tuple[int, int]) -> Cells:
    """Divides what a view shows into its cells.

    Args:
        picture: The picture's width and height, pixels.
        seen: What the view shows of it.
        grid: Rows and columns of cells.

    Returns:
        The cells.
    """
    return Cells(picture, grid, seen.width / grid[1], seen.height / grid[0], seen.left, seen.top)


def whole(picture: tuple[int, int]) -> Seen:
    """What a view shows into which the whole picture is squashed, whatever its aspect ratio."""
    return Seen(0.0, 0.0, *map(float, picture))


def centre(picture: tuple[int, int], shortest_edge: int, crop: tuple[int, int]) -> Seen:
    """What a view shows that is cut out of the middle of the picture after a resize of its shorter side.

    Args:
        picture: The picture's width and height, pixels.
        shortest_edge: The length that the shorter side is resized to.
        crop: Width and height of the cut, in pixels after the resize.

    Returns:
        The rectangle, up to the resize's rounding to whole pixels.
    """
    width, height = picture
    scale = min(width, height) / shortest_edge
    seen_width, seen_height = crop[0] * scale, crop[1] * scale
    return Seen((width - seen_width) / 2, (height - seen_height) / 2, seen_width, seen_height)


def _inside(start: float, length: float, number: int, end: int) -> range:
    shown = [i for i in range(number) if start + (i + 1) * length > _HAIR and start + i * length < end - _HAIR]
    return range(shown[0], shown[-1] + 1)
