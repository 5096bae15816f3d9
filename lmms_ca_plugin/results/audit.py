"""What does not add up in the published tables, and where they disagree with each other or with the text.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", Tables 1 to 3 and the sections that quote them, and one review
article about it. Facts with cell names, no judgement. Whatever can be computed from the tables is computed; what the
text states is listed here with the section it stands in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from lmms_ca_plugin.results.published import SETS, PublishedRow, tables

_HUNDREDTH = Decimal("0.01")


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        kind: What it is about.
        where: The cells or sections.
        what: The numbers.
    """

    kind: str
    where: str
    what: str


@dataclass(frozen=True)
class Claim:
    """A gain that a text states: from the baseline's cell to the method's, of one model."""

    where: str
    model: str
    column: str
    stated: str


_GAINS = (
    Claim("review article, 'Results Across VQA Benchmarks'", "LLaVA-v1.5", "average", "3.06"),
    Claim("review article, 'Results Across VQA Benchmarks'", "LLaVA-v1.5", "vqav2", "2.3"),
    Claim("review article, 'Results Across VQA Benchmarks'", "LLaVA-v1.5", "okvqa", "3.8"),
    Claim("review article, 'Results Across VQA Benchmarks'", "LLaVA-v1.6", "average", "2.66"),
)
_QUOTED_AVERAGES = (
    ("section 5.2", 1, "LLaVA-v1.5", "contrastive", "58.17"),
    ("section 5.2", 1, "InternVL-MLP", "baseline", "52.97"),
    ("section 5.2", 1, "Qwen-VL", "baseline", "50.49"),
)
_RANGES = {
    "shallow": (("Table 3", "0-15"), ("section 4.1", "1-16"), ("section 5.5", "0-16")),
    "deep": (("Table 3", "16-28"), ("section 4.1", "17-28"), ("section 5.5", "16-28")),
}


def _exact_mean(row: PublishedRow) -> Decimal:
    """The unrounded mean of a row's printed cells."""
    cells = [Decimal(row.cells[name]) for name in SETS if name in row.cells]
    return sum(cells, Decimal(0)) / len(cells)


def _averages(rows: Sequence[PublishedRow]) -> Iterator[Finding]:
    """Averages that are not the mean of their row, and averages over fewer than six sets."""
    for row in rows:
        mean, printed = _exact_mean(row), Decimal(row.cells["average"])
        rounded = mean.quantize(_HUNDREDTH, ROUND_HALF_UP)
        if rounded != printed:
            off = abs(rounded - printed)
            kind = "average, last digit" if off == _HUNDREDTH else "average"
            yield Finding(kind, f"{row.label}, average", f"printed {printed}, mean of its cells {rounded} ({mean:.5f})")
        missing = [name for name in SETS if name not in row.cells]
        if missing:
            what = f"{printed} is over {len(SETS) - len(missing)} sets, without {', '.join(missing)}"
            yield Finding("average over fewer sets", f"{row.label}, average", what)


def _row(rows: Sequence[PublishedRow], table: int, model: str, method: str) -> PublishedRow:
    """Finds a row."""
    return next(row for row in rows if (row.table, row.model, row.method) == (table, model, method))


def _quotations(rows: Sequence[PublishedRow]) -> Iterator[Finding]:
    """Averages and gains that a text states otherwise than the tables."""
    for where, table, model, method, stated in _QUOTED_AVERAGES:
        printed = _row(rows, table, model, method).cells["average"]
        if Decimal(printed) != Decimal(stated):
            label = _row(rows, table, model, method).label
            yield Finding(
                "text and table", f"{where} and {label}, average", f"{stated} in the text, {printed} in the table"
            )
    for claim in _GAINS:
        before, after = (_row(rows, 1, claim.model, method).cells for method in ("baseline", "contrastive"))
        gains = {name: Decimal(after[name]) - Decimal(before[name]) for name in (*SETS, "average")}
        if gains[claim.column] != Decimal(claim.stated):
            others = [name for name, gain in gains.items() if gain == Decimal(claim.stated)]
            also = f"; {claim.stated} is the gain on {', '.join(others)}" if others else ""
            what = f"{claim.stated} in the text, {gains[claim.column]} in the table{also}"
            yield Finding("text and table", f"{claim.where} and Table 1, {claim.model} {claim.column}", what)


def _not_the_best(rows: Sequence[PublishedRow]) -> Iterator[Finding]:
    """Cells in which another row is at or above the method that the text calls consistently better or best."""
    for row in (row for row in rows if row.table == 2 and row.method != "contrastive"):
        ours = _row(rows, 2, row.model, "contrastive")
        for name in SETS:
            if Decimal(row.cells[name]) >= Decimal(ours.cells[name]):
                what = f"{row.cells[name]}, the method has {ours.cells[name]}; section 5.3: 'consistently outperforms'"
                yield Finding("above the method", f"{row.label}, {name}", what)
    best = _row(rows, 1, "LLaVA-v1.5", "contrastive")
    for row in (row for row in rows if row.table == 1 and row.method == "baseline"):
        if "LLaVA" not in row.model and Decimal(row.cells["average"]) > Decimal(best.cells["average"]):
            what = (
                f"{row.cells['average']}, the method on LLaVA-v1.5 has {best.cells['average']}; section 5.2 calls that "
                "state of the art and does not list this row"
            )
            yield Finding("above the method", f"{row.label}, average", what)


def _equal_rows(rows: Sequence[PublishedRow]) -> Iterator[Finding]:
    """Rows of Tables 2 and 3 that describe other experiments and share four or more cells."""
    for third in (row for row in rows if row.table == 3):
        for second in (row for row in rows if row.table == 2 and row.method != "contrastive"):
            tenth = Decimal("0.1")
            equal = [
                name
                for name in SETS
                if Decimal(third.cells[name]).quantize(tenth, ROUND_HALF_UP) == Decimal(second.cells[name])
            ]
            if len(equal) >= 4:
                cells = ", ".join(f"{name} {second.cells[name]}" for name in equal)
                yield Finding(
                    "equal cells", f"{third.label} and {second.label}", f"{len(equal)} of 6 are equal: {cells}"
                )


def _ranges() -> Iterator[Finding]:
    """Layer ranges that are given differently in different places."""
    for scope, places in _RANGES.items():
        if len({layers for _, layers in places}) > 1:
            what = ", ".join(f"{layers} in {where}" for where, layers in places)
            yield Finding("layer ranges", scope, what)


def audit() -> list[Finding]:
    """Lists the findings.

    Returns:
        Facts, grouped by kind.

    Raises:
        InputError: The tables are missing from this installation.
    """
    rows = tables()
    found = [*_averages(rows), *_quotations(rows), *_not_the_best(rows), *_equal_rows(rows), *_ranges()]
    kinds = list(dict.fromkeys(finding.kind for finding in found))
    return sorted(found, key=lambda finding: kinds.index(finding.kind))
