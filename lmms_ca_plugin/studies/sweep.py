"""Sweeps from their names to their files: results per variant, tidy tables, figures.

Sweeps that are asked for together are computed together: their variants share one pass of every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.load import describe
from lmms_ca_plugin.engine.timing import Timed
from lmms_ca_plugin.errors import GenerationError, LmmsCaError, OptionError
from lmms_ca_plugin.figures.save import save_forms
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.harness.study import Finished, Study
from lmms_ca_plugin.harness.timings import Timings
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.sweeps import load_sweep
from lmms_ca_plugin.studies.tidy import agreement, tidy


@dataclass(frozen=True)
class Swept:
    """What a sweep left.

    Attributes:
        finished: Its runs.
        table: The tidy table.
        csv: Where the table is.
        figures: Where the figures are.
        agreement: Its answers beside those of runs alone; None if there were none (`Asked.timing`).
        missing: Why variants that the sweep has are not in it, by name: they fit no such checkpoint, or failed.
    """

    finished: Finished
    table: pd.DataFrame
    csv: Path
    figures: tuple[Path, ...]
    agreement: Agreement | None
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """Sweeps that run as one study.

    Attributes:
        study: All their variants that fit the checkpoint, each once.
        parts: The variants that each has, by its name.
        unfit: Why the others do not fit, by name.
    """

    study: Study
    parts: Mapping[str, tuple[Variant, ...]]
    unfit: Mapping[str, str]


def planned(names: Sequence[str], asked: Asked, leave_out: bool = False) -> Planned:
    """Says what sweeps will run; reads the checkpoint's config, and no weight.

    Args:
        names: The sweeps.
        asked: Their settings.
        leave_out: Whether any variant that does not fit the checkpoint is left out, with its reason, and not only an
            optional one. One whose options the user gave was asked for by name, and a sweep has to have something
            beside its baseline.

    Raises:
        OptionError: There is no such sweep, two of them mean different things by one variant's name, or a variant does
            not fit the checkpoint.
        CheckpointError: The checkpoint cannot be used.
    """
    definitions = {name: load_sweep(name) for name in names}
    trunk = describe(asked.checkpoint).trunk
    parts = {name: tuple(definition.variants(asked, trunk)) for name, definition in definitions.items()}
    variants: dict[str, Variant] = {}
    for name, part in parts.items():
        for variant in part:
            if variants.setdefault(variant.name, variant).made() != variant.made():
                raise OptionError(f"{', '.join(names)}: '{variant.name}' means something else in {name}. Run it alone.")
    unfit: dict[str, str] = {}
    for variant in variants.values():
        method = variant.made()
        try:
            method.plan(trunk)
        except LmmsCaError as error:
            if not variant.optional and (not leave_out or asked.given.get(variant.method)):
                raise
            unfit[variant.name] = str(error)
    for name, part in parts.items():
        reasons = [unfit[v.name] for v in part if v.name in unfit]
        if reasons and len(part) - len(reasons) < 2:
            raise OptionError(f"{name}: no variant fits {asked.checkpoint.pretrained}. {reasons[0]}")
    study = asked.study("+".join(sorted(parts)), tuple(v for v in variants.values() if v.name not in unfit))
    return Planned(study, parts, unfit)


def refuse_unused(names: Sequence[str], asked: Asked) -> None:
    """Refuses options of methods that none of some sweeps runs: they would do nothing.

    Raises:
        OptionError: There is one.
    """
    trunk = describe(asked.checkpoint).trunk
    run = {variant.method for name in names for variant in load_sweep(name).variants(asked, trunk)}
    for method in asked.given:
        if method not in run:
            raise OptionError(
                f"--set {method}...: {', '.join(names)} runs no {method}, so it would do nothing. Methods that it "
                f"runs: {', '.join(sorted(run))}."
            )


def sweep(names: Sequence[str], asked: Asked, leave_out: bool = False) -> dict[str, Swept]:
    """Runs sweeps, or what is missing of them, and writes their tables and figures.

    Args:
        names: The sweeps.
        asked: Their settings.
        leave_out: Whether a variant that does not fit the checkpoint is left out; see `planned`.

    Returns:
        Where everything is, by sweep.

    Raises:
        OptionError: There is no such sweep, or a variant does not fit the checkpoint.
        InputError: The output folder holds another study.
        GenerationError: A question could not be answered; what was answered before is kept, and where it was a variant
            that shares no pass with others, the others have their results, tables and figures.
    """
    plan = planned(names, asked, leave_out)
    runner = Runner(plan.study, leave_out)
    finished = runner.run()
    timings = runner.timings
    swept = _finish(plan, finished, timings)
    if finished.failed and not leave_out:
        why, tables = next(iter(finished.failed.values())), ", ".join(str(of.csv) for of in swept.values())
        raise GenerationError(f"{why}\nAll other variants are done: {tables}") from why
    if asked.timing not in (0, timings.questions):
        # The tables are there already, should this be stopped: it takes as long as all variants one by one.
        swept = _finish(plan, finished, runner.timed(list(finished.results), asked.timing))
    return swept


def _finish(plan: Planned, finished: Finished, timings: Timings) -> dict[str, Swept]:
    parts = {name: finished.part(name, of) for name, of in plan.parts.items()}
    why = {**plan.unfit, **{name: str(error) for name, error in finished.failed.items()}}
    missing = {name: {v.name: why[v.name] for v in of if v.name in why} for name, of in plan.parts.items()}
    # All tables before the first figure: a figure may find that it has nothing to show.
    tables = {name: _tabled(name, part, timings.found, missing[name]) for name, part in parts.items()}
    return {name: _drawn(name, part, tables[name], timings.found, missing[name]) for name, part in parts.items()}


def _tabled(
    name: str, finished: Finished, alone: Mapping[str, Mapping[str, Timed]], missing: Mapping[str, str]
) -> pd.DataFrame:
    table = tidy(finished, alone)
    write_atomically(_csv(name, finished), table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    reasons = _csv(f"{name}_missing", finished)
    if missing:
        rows = pd.DataFrame({"variant": list(missing), "reason": list(missing.values())})
        write_atomically(reasons, rows.to_csv(index=False, lineterminator="\n"))
    else:
        reasons.unlink(missing_ok=True)  # of an earlier run, in which a variant failed
    return table


def _csv(name: str, finished: Finished) -> Path:
    return finished.study.output / f"{name}.csv"


def _drawn(
    name: str,
    finished: Finished,
    table: pd.DataFrame,
    alone: Mapping[str, Mapping[str, Timed]],
    missing: Mapping[str, str],
) -> Swept:
    folder = finished.study.output
    drawn = load_sweep(name).figures(finished, table)
    figures = tuple(file for called, figure in drawn.items() for file in save_forms(figure, folder / called))
    compared = [
        agreement(finished.answers[variant.name], timed)
        for variant in finished.study.variants
        for timed in alone.get(variant.name, {}).values()
    ]
    agreed = sum(compared[1:], compared[0]) if compared else None
    return Swept(finished, table, _csv(name, finished), figures, agreed, missing)
