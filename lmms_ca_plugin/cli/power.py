"""`lmms-ca power`: how many questions a difference needs."""

from __future__ import annotations

import json as json_module
import math
from typing import Annotated

import typer

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.multiplicity import ALPHA


def power(
    difference: Annotated[float, typer.Option(help="The true difference to find, in points, either way.")] = 1.0,
    flips: Annotated[float, typer.Option(help="Share of answers that change side, in percent.")] = 15.0,
    baseline: Annotated[str, typer.Option(help="Measure the spread on two runs instead: the first.")] = "",
    candidate: Annotated[str, typer.Option(help="The second.")] = "",
    alpha: Annotated[float, typer.Option(help="Two-sided level.")] = ALPHA,
    chance: Annotated[float, typer.Option("--power", help="Chance to find it.")] = 0.8,
    tasks: Annotated[int, typer.Option(help="Tasks in the comparison (Holm's rule, worst case).")] = 1,
    cluster_size: Annotated[float, typer.Option(help="Questions per picture.")] = 1.0,
    correlation: Annotated[float, typer.Option(help="Of two changes on one picture.")] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many paired questions show a difference, and what 100 to 100,000 questions show."""
    from lmms_ca_plugin.results.power import change_sd, design_effect, detectable_difference, samples_needed
    from lmms_ca_plugin.results.regression import compare

    sizes = (100, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000)
    if bool(baseline) != bool(candidate):
        raise InputError("--baseline and --candidate go together: one of them is missing.")
    if baseline:
        found = compare(baseline, candidate).tasks
        # the clustered error already holds what clusters cost
        spreads = {t.task: (t.pair.stderr * math.sqrt(t.pair.n), 1.0) for t in found if t.pair.stderr > 0}
        unknown = [t.task for t in found if t.task not in spreads]
    else:
        spread = change_sd(flips / 100, difference / 100)
        spreads, unknown = {f"{flips:g} % flips": (spread, design_effect(cluster_size, correlation))}, []
    if not spreads:
        raise InputError(
            f"No answer changed from {baseline} to {candidate}, or all alike: no spread was measured, so nothing can "
            "be computed. Give two runs that differ, or the share of answers that change side as --flips."
        )
    needed = {name: samples_needed(difference / 100, sd, alpha, chance, tasks, e) for name, (sd, e) in spreads.items()}
    shown = {
        name: {n: 100 * detectable_difference(n, sd, alpha, chance, tasks, e) for n in sizes}
        for name, (sd, e) in spreads.items()
    }
    if json:
        found_json = {
            **{name: {"samples": needed[name], "detectable": shown[name]} for name in needed},
            **dict.fromkeys(unknown),
        }
        print(
            json_module.dumps(
                {"difference": difference, "alpha": alpha, "power": chance, "tasks": found_json}, indent=2
            )
        )
        return
    for name, samples in needed.items():
        print(f"{name}: {samples} paired questions find {abs(difference):g} points with power {chance:g}")
        for n, smallest in shown[name].items():
            print(f"    {n:>7} questions find {smallest:.2f} points")
    for name in unknown:
        print(f"{name}: no answer changed, or all alike: no spread was measured, so nothing can be computed")
