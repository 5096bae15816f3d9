"""The leaderboard's CSV: its columns, how it is written, and what is refused when it is read again.

Rules: one row per model, method, task and metric; scores, differences and intervals in percent; p-values and counts as
they are; an empty cell means "not known" or "does not apply", never 0. Text that a spreadsheet program would run as a
formula gets a leading apostrophe, which reading takes off again; numbers are never touched.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from lmms_ca_plugin.errors import InputError, nearest

BASELINE = "vanilla"
"""The method, and in a study the variant, that differences are taken to."""

Value = str | int | float | None
Row = dict[str, Value]

TEXT: frozenset[str] = frozenset(
    {"model", "revision", "method", "method_args", "task", "split", "metric", "cluster_source", "baseline"}
    | {"published_source", "batch_size", "dtype", "device", "seed", "lmms_eval", "transformers", "torch", "plugin"}
    | {"commit", "date", "command", "documents"}
)
WHOLE = ("n", "n_failed", "n_empty")
COLUMNS: tuple[str, ...] = (
    *("model", "revision", "method", "method_args", "task", "split", "metric", "score", "stderr", "ci95_low"),
    *("ci95_high", "n", "documents", "n_failed", "n_empty", "cluster_source", "delta", "delta_ci95_low"),
    *("delta_ci95_high", "p_value", "p_holm", "baseline", "published", "published_source", "seconds"),
    *("samples_per_second", "peak_memory_gib", "batch_size", "dtype", "device", "seed", "lmms_eval", "transformers"),
    *("torch", "plugin", "commit", "date", "command"),
)
KEY = ("model", "revision", "method", "method_args", "task", "split", "metric", "documents", "seed", "dtype")
"""What makes two rows the same measurement, so that the newer one replaces the older."""

DIGITS = 10
"""Decimals that a cell keeps."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape(text: str) -> str:
    """Puts an apostrophe before text that a spreadsheet program would run.

    Args:
        text: A cell of text.

    Returns:
        The cell, harmless.
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def _unescape(text: str) -> str:
    """Undoes `escape`."""
    return text[1:] if text.startswith("'") else text


def _cell(column: str, value: Value) -> str:
    """Writes one cell; the shortest text that reads back as the same number."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return ""
    return escape(str(value)) if column in TEXT else repr(round(value, DIGITS) if isinstance(value, float) else value)


def to_csv(rows: Iterable[Mapping[str, Value]]) -> str:
    """Writes rows as CSV, sorted by what they measure and by date.

    Args:
        rows: Rows with the schema's columns.

    Returns:
        The text of the file.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    order = (*KEY, "date")
    for row in sorted(rows, key=lambda row: tuple(str(row.get(column) or "") for column in order)):
        writer.writerow([_cell(column, row.get(column)) for column in COLUMNS])
    return out.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Reads a leaderboard.

    Args:
        path: A file that `to_csv` wrote.

    Returns:
        Its rows.

    Raises:
        InputError: A column is unknown or missing, a row is too short or too long, or a cell is no number.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    header = lines[0] if lines else []
    for column in header:
        if column not in COLUMNS:
            raise InputError(
                f"{path}: unknown column '{column}'.{nearest(column, COLUMNS)} It is no leaderboard of ours."
            )
    missing = [column for column in COLUMNS if column not in header]
    if missing or len(header) != len(COLUMNS):
        raise InputError(f"{path}: columns are missing or doubled: {', '.join(missing) or 'a name is there twice'}.")
    rows: list[Row] = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number} has {len(cells)} cells, not {len(header)}: it is half-written.")
        rows.append({column: _parse(path, number, column, cell) for column, cell in zip(header, cells, strict=True)})
    return rows


def _parse(path: Path, number: int, column: str, cell: str) -> Value:
    """Reads one cell by its column's kind."""
    if column in TEXT:
        return _unescape(cell)
    if cell == "":
        return None
    try:
        value: int | float = int(cell) if column in WHOLE else float(cell)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {column} is '{cell}', which is no number.") from error
    if not math.isfinite(value):
        raise InputError(f"{path}, line {number}: {column} is {cell}; a number or nothing is allowed.")
    return value
