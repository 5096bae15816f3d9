"""The leaderboard in the paper's shape: a row per model and method, a column per set, the average last.

Rules: the cells are the main scores. Those are `vqa_accuracy` on the sets with votes and `vqa_exact` on GQA and DocVQA,
two measures that the table joins and its caption names. Our tasks, the bundled ones and the harness's own never share a
table. An average needs all six sets: an average over fewer is another number. A run on other documents of a set than
the largest in the table is a line of its own, which names its n. Printed values, the average among them, stand in a row
of their own below the row that they belong to.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.options import split_args
from lmms_ca_plugin.results.markdown import as_markdown
from lmms_ca_plugin.results.multiplicity import ALPHA
from lmms_ca_plugin.results.published import SETS, benchmark_of, published_average
from lmms_ca_plugin.results.schema import BASELINE, Row, escape
from lmms_ca_plugin.scoring.documents import BENCHMARKS

Form = Literal["markdown", "csv", "latex"]

_TITLES = {
    "gqa": "GQA",
    "vqav2": "VQAv2",
    "okvqa": "OKVQA",
    "vizwiz": "VizWiz",
    "textvqa": "TextVQA",
    "docvqa": "DocVQA",
}
_HEADER = ("Model", "Method", *(_TITLES[name] for name in SETS), "Average")
_MARK = "*"
_OTHERS = "the harness's own"


@dataclass(frozen=True)
class WideTable:
    """One table in the paper's shape."""

    caption: str
    lines: tuple[tuple[str, ...], ...]


def _family(task: str) -> str:
    """Which tasks share a table."""
    prefix = task.split("_")[0]
    return f"{prefix}_*" if prefix in ("ca", "mini") else _OTHERS


def _is_main(row: Row, benchmark: str) -> bool:
    """Whether a row holds the main score of its set."""
    metric = str(row["metric"])
    if _family(str(row["task"])) == _OTHERS:
        return metric in ("exact_match", "anls")
    return metric == BENCHMARKS[benchmark].main


def _number(row: Row, column: str) -> float | None:
    """A row's number, or None where its cell is empty or not a number (one cluster has no interval)."""
    value = row.get(column)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _cell(row: Row | None) -> str:
    """Score, interval, and a mark where the difference to the baseline is significant."""
    score = _number(row, "score") if row else None
    if row is None or score is None:
        return ""
    low, high = _number(row, "ci95_low"), _number(row, "ci95_high")
    interval = f" [{low:.1f}, {high:.1f}]" if low is not None and high is not None else ""
    p_holm = _number(row, "p_holm")
    return f"{score:.2f}{interval}{_MARK if p_holm is not None and p_holm < ALPHA else ''}"


def _average(values: Sequence[float | None]) -> str:
    """The mean of all six, or nothing."""
    whole = [value for value in values if value is not None]
    return f"{sum(whole) / len(whole):.2f}" if len(whole) == len(SETS) else ""


def _names(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Names each method; where a model has several variants of one, by what most of them do not have."""
    names: dict[tuple[str, ...], str] = {}
    for key in keys:
        same = [other for other in keys if (other[0], other[2]) == (key[0], key[2])]
        own = _own(key[3], [other[3] for other in same])
        for place, name in ((1, "revision"), (5, "seed"), (6, "dtype")):
            if len({other[place] for other in same}) > 1:
                own.append(f"{name}={key[place] or 'none'}")
        own += [key[4]] if key[4] else []
        names[key] = f"{key[2]} ({', '.join(own)})" if own else key[2]
    return names


def _own(variant: str, variants: Sequence[str]) -> list[str]:
    """The options of a variant that more than half of the variants do not share; one that it lacks is `no ...`."""
    given = [split_args(args) for args in variants]
    mine, own = given[variants.index(variant)], []
    for name in sorted({name for options in given for name in options}):
        value = mine.get(name)
        if 2 * sum(options.get(name) == value for options in given) <= len(given):
            own.append(f"no {name}" if value is None else f"{name}={value}")
    return own


def _lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table's lines: of each model and method ours, and what is printed."""
    shown = [
        (benchmark, int(str(row["n"])), row)
        for row in rows
        if (benchmark := benchmark_of(str(row["task"]))) in SETS and _is_main(row, benchmark)
    ]
    # Of equally many documents those of the newest run are the table's.
    whole = {
        benchmark: max((n, str(row["date"]), row["documents"]) for of, n, row in shown if of == benchmark)
        for benchmark, _, _ in shown
    }
    cells: dict[tuple[str, ...], dict[str, Row]] = {}
    for benchmark, n, row in shown:
        # a run on other questions neither mixes with one on these nor replaces it
        most, _, documents = whole[benchmark]
        size = "" if row["documents"] == documents else f"n={n}" if n < most else f"documents={row['documents']}"
        of = [str(row.get(name) or "") for name in ("model", "revision", "method", "method_args", "seed", "dtype")]
        key = (*of[:4], size, *of[4:])
        older = cells.setdefault(key, {}).get(benchmark)
        if older is None or str(row["date"]) >= str(older["date"]):
            cells[key][benchmark] = row
    names = _names(list(cells))
    lines: list[tuple[str, ...]] = []
    for key in sorted(cells, key=lambda key: (key[0], key[2] != BASELINE, names[key])):
        found = [cells[key].get(name) for name in SETS]
        scores = [_number(row, "score") if row else None for row in found]
        lines.append((key[0], names[key], *map(_cell, found), _average(scores)))
        printed = [_number(row, "published") if row else None for row in found]
        if any(value is not None for value in printed):
            sources = {str(row["published_source"]) for row in found if row and row.get("published_source")}
            texts = ("" if value is None else f"{value:.2f}" for value in printed)
            average = published_average(key[0], key[2], key[3], sources) if None not in printed else ""
            lines.append((key[0], f"{names[key]}, printed ({'; '.join(sorted(sources))})", *texts, average))
    return lines


def wide_tables(rows: Sequence[Row]) -> list[WideTable]:
    """Lays rows out in the paper's shape.

    Args:
        rows: Leaderboard rows.

    Returns:
        One table for our tasks, one for the bundled ones, one for the harness's own, as far as there are any.

    Raises:
        InputError: No row is of one of the six sets.
    """
    tables: list[WideTable] = []
    for family in ("ca_*", "mini_*", _OTHERS):
        lines = _lines([row for row in rows if _family(str(row["task"])) == family])
        measure = (
            "exact_match (the harness's VQA accuracy; plain equality on GQA), anls on DocVQA; intervals not clustered"
            if family == _OTHERS
            else "vqa_accuracy, on GQA and DocVQA vqa_exact; intervals clustered by picture"
        )
        if lines:
            caption = (
                f"Tasks {family}: {measure}. In percent, with 95 % intervals; {_MARK} differs from the baseline "
                f"(Holm-adjusted p < {ALPHA:g}). Printed values name no scorer."
            )
            tables.append(WideTable(caption, tuple(lines)))
    if not tables:
        raise InputError("No row is of one of the six sets, so that there is no table in the paper's shape.")
    return tables


def render(table: WideTable, form: Form) -> str:
    """Writes a table.

    Args:
        table: The table.
        form: `markdown`, `csv` or `latex` (booktabs).

    Returns:
        Its text.
    """
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([_HEADER, *([escape(cell) for cell in line] for line in table.lines)])
        return out.getvalue()
    if form == "latex":
        caption = table.caption.replace("%", r"\%").replace("_", r"\_")
        frame = pd.DataFrame(table.lines, columns=list(_HEADER))
        return frame.to_latex(index=False, escape=True, column_format="ll" + "r" * 7, caption=caption)
    return f"{table.caption}\n\n{as_markdown(_HEADER, table.lines, texts=2)}"
