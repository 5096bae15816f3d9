"""Throughput and studies as JSON records and tables; what they share with the methods is in `bench/report.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from lmms_ca_plugin.bench.estimate import CONFIDENCE, Claim
from lmms_ca_plugin.bench.memory import Peak
from lmms_ca_plugin.bench.report import interval
from lmms_ca_plugin.bench.studies import StudyCost
from lmms_ca_plugin.bench.throughput import Throughput

MIB = 2**20


def of_throughput(found: Throughput) -> dict[str, Any]:
    """The record of `bench throughput`."""
    base = {"name": found.base.name, "seconds": found.base_seconds, "peaks": [asdict(p) for p in found.base.peaks]}
    return {
        "base": base,
        "speeds": {speed.name: {**asdict(speed), "time": asdict(speed.time)} for speed in found.speeds},
        "claims": _claims(found.claims),
    }


def of_studies(costs: Sequence[StudyCost]) -> dict[str, Any]:
    """The record of `bench studies`."""
    return {"studies": {cost.name: _study(cost) for cost in costs}}


def _study(cost: StudyCost) -> dict[str, Any]:
    floor = {**asdict(cost.floor), "baseline_runs": cost.floor.baseline_runs, "share": cost.floor.share}
    return {
        "title": cost.case.title,
        "against": cost.case.against,
        "variants": cost.variants,
        "branches": cost.branches,
        "agreement": {**asdict(cost.agreement), "differing": cost.agreement.differing},
        "time": asdict(cost.time),
        "pairs": [asdict(pair) for pair in cost.pairs],
        "peaks": [asdict(peak) for peak in cost.peaks],
        "vanilla_peaks": [asdict(peak) for peak in cost.vanilla_peaks],
        "floor": floor,
        "claims": _claims(cost.claims),
    }


def _claims(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    return [{**asdict(claim), "verdict": claim.verdict} for claim in claims]


# ---- tables ----------------------------------------------------------------------------------------------------------
def throughput_table(found: Throughput) -> Table:
    """Renders the sides: seconds per question, time and throughput relative to the base, memory, encoding."""
    table = Table(
        title=f"{found.questions} questions a run; times relative to {found.base.name}",
        caption=f"Median with its {CONFIDENCE:.0%} interval. Encoding: decoding and preprocessing, as a share of the "
        "run's time; waiting: what of it the model waited for. MiB: peak of one batch beyond the weights. "
        "Same: answers that are the base's.",
    )
    for heading in ("side", "s/question", "time", "throughput", "encoding", "waiting", "MiB", "same"):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    table.add_row(
        found.base.name, f"{found.base_seconds / found.questions:.3f}", "1", "1", "", "", _mib(found.base.peaks), ""
    )
    for speed in found.speeds:
        seconds = statistics.median(pair.own for pair in speed.pairs) / found.questions
        throughput = f"{1 / speed.time.median:.2f}"
        shares = [f"{statistics.median(s):.1%}" if s else "" for s in (speed.encoding, speed.waiting)]
        row = (f"{seconds:.3f}", interval(speed.time), throughput, *shares, _mib(speed.peaks), str(speed.same))
        table.add_row(speed.name, *row)
    return table


def studies_table(costs: Sequence[StudyCost]) -> Table:
    """Renders the studies: time relative to what each is measured against, its floor, memory."""
    table = Table(
        title="Studies as branches of one pass",
        caption=f"Time: median with its {CONFIDENCE:.0%} interval. Memory: peak beyond the weights, in vanilla's.",
    )
    for heading in ("study", "seconds", "time", "floor", "memory"):
        table.add_column(heading, justify="left" if heading == "study" else "right", no_wrap=True)
    for cost in costs:
        seconds = statistics.median(pair.own for pair in cost.pairs)
        memory = f"{cost.peaks[0].working / cost.vanilla_peaks[0].working:.2f}"
        table.add_row(cost.case.title, f"{seconds:.2f}", interval(cost.time), f"{cost.least:.3f}", memory)
    return table


def studies_remarks(costs: Sequence[StudyCost]) -> list[str]:
    """Says what each study consists of, what it was measured against, and whether its answers are the same there."""
    lines = []
    for cost in costs:
        different = ", ".join(map(str, sorted(set(cost.branches))))
        lines.append(
            f"{cost.case.title}: {cost.variants} variants, of which {different} differ on a question, relative to "
            f"{cost.case.against}; {cost.agreement} there."
        )
    return lines


def claims_table(claims: Sequence[Claim]) -> Table:
    """Renders what was to be shown, and whether it was."""
    table = Table(caption="A target inside its interval, or without one, is undecided.")
    for heading in ("claim", "found", "target", "verdict"):
        table.add_column(heading, justify="right" if heading in ("found", "target") else "left")
    for claim in claims:
        least = "" if claim.least is None else f"{claim.least:.2f} to "
        table.add_row(claim.what, interval(claim.estimate), f"{least}{claim.most:.3g}", claim.verdict)
    return table


def _mib(peaks: Sequence[Peak]) -> str:
    return f"{peaks[0].working / MIB:.0f}"
