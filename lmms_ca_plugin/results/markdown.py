"""A table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def as_markdown(header: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """Writes a table.

    Args:
        header: The columns' names.
        lines: Cells; a bar in a cell is escaped.
        texts: How many of the first columns hold text; the others are numbers and stand to the right.

    Returns:
        Its lines, the last one ended too.
    """
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    rows = [header, rule, *([cell.replace("|", r"\|") for cell in line] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
