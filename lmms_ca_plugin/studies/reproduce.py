"""The paper's tables and figures again: its layout, printed values, ours, and the differences side by side.

Rule: a printed value, and a number of the text, stands beside ours only where checkpoint, task and options are the
paper's, which `results.published` decides. Every printed row is there, and one that was not run says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.results.markdown import as_markdown
from lmms_ca_plugin.results.published import (
    BENCHMARK_OF,
    SETS,
    PublishedRow,
    benchmark_of,
    not_the_papers,
    printed_model,
    published_value,
    tables,
)
from lmms_ca_plugin.results.schema import BASELINE
from lmms_ca_plugin.studies.asked import Asked, folder_of
from lmms_ca_plugin.studies.sweep import Planned, Swept, planned, sweep
from lmms_ca_plugin.studies.targets import Claim, Target, load_target

_COLUMNS = ("model", "row", "kind", *SETS, "average", "note")
_GROUPS = ("ca", "mini")  # each has a task of every set


@dataclass(frozen=True)
class Reproduced:
    """What a reproduction left.

    Attributes:
        layout: The paper's table with ours in it, columns `model, row, kind`, the six sets, `average`, `note`; kinds
            are `printed`, `ours`, `ours - printed` and `ours - vanilla`. None for a figure.
        claims: What the text says, by checkpoint.
        swept: The runs, by checkpoint.
        files: Tables and figures.
    """

    layout: pd.DataFrame | None
    claims: Mapping[str, Sequence[Claim]]
    swept: Mapping[str, Swept]
    files: tuple[Path, ...]


def plans(names: Sequence[str], checkpoints: Sequence[CheckpointOptions], asked: Asked) -> dict[str, Planned]:
    """Says what a reproduction will run; reads configs, and no weight.

    Args:
        names: Tables and figures.
        checkpoints: The models at hand.
        asked: Settings of all runs.

    Returns:
        One plan by checkpoint: what several targets need runs together, and what they share runs once.

    Raises:
        OptionError: There is no such target, no checkpoint, or one that is given twice; or two tasks are of one set,
            which has one column of a table.
    """
    targets = [load_target(name) for name in names]
    if any(target.table is not None for target in targets):
        _refuse_doubled(asked.tasks)
    given = [checkpoint.pretrained for checkpoint in checkpoints]
    if not given or len(set(given)) < len(given):
        raise OptionError(f"pretrained={':'.join(given)}: name at least one checkpoint, and each once.")
    return {c.pretrained: planned(_sweeps(targets), _on(c, asked), leave_out=True) for c in checkpoints}


def _refuse_doubled(tasks: Sequence[str]) -> None:
    """Refuses two tasks of one set, as far as their names tell it before they are loaded."""
    first: dict[str | None, str] = {}
    for task in tasks:
        for benchmark in SETS if task in _GROUPS else (benchmark_of(task),):
            if benchmark in SETS and first.setdefault(benchmark, task) is not task:
                raise _doubled(benchmark, first[benchmark], task)


def _sweeps(targets: Sequence[Target]) -> list[str]:
    return list(dict.fromkeys(target.sweep for target in targets))


def _on(checkpoint: CheckpointOptions, asked: Asked) -> Asked:
    """The settings on one checkpoint; its folder is the same for all targets, which share what they have in common."""
    return replace(asked, checkpoint=checkpoint, output=asked.output / folder_of(checkpoint.pretrained))


def reproduce(names: Sequence[str], checkpoints: Sequence[CheckpointOptions], asked: Asked) -> dict[str, Reproduced]:
    """Runs what tables and figures of the paper need, and lays them out beside what is printed.

    Args:
        names: E.g. `table3` and `fig7`.
        checkpoints: The models at hand.
        asked: Settings of all runs; its output folder gets one folder per checkpoint, and one per target for layouts.

    Returns:
        Layout, claims, runs and files, by target.

    Raises:
        OptionError: There is no such target, or a variant does not fit a checkpoint.
        GenerationError: A question could not be answered by variants that share their passes; what was answered before
            is kept. Of others the layout says it.
    """
    plans(names, checkpoints, asked)  # everything that can be refused is refused before the first run
    targets = {name: load_target(name) for name in names}
    swept = {c.pretrained: sweep(_sweeps(list(targets.values())), _on(c, asked), leave_out=True) for c in checkpoints}
    return {
        name: _made(target, {c: of[target.sweep] for c, of in swept.items()}, asked.output / name / name)
        for name, target in targets.items()
    }


def _made(target: Target, swept: Mapping[str, Swept], place: Path) -> Reproduced:
    """Writes what is made of a target's runs; `place` is its files' path without an ending."""
    files = [file for of in swept.values() for file in (of.csv, *of.figures)]
    found = {checkpoint: of.table for checkpoint, of in swept.items()}
    claims = {c: [beside(claim, c, target, found[c]) for claim in target.claims(of)] for c, of in swept.items()}
    layout = None
    if target.table is not None:
        layout = laid_out(target, found, {c: of.missing for c, of in swept.items()})
        files.append(place.with_suffix(".csv"))
        write_atomically(files[-1], layout.to_csv(index=False, lineterminator="\n"))
        files.append(place.with_suffix(".md"))
        write_atomically(files[-1], as_markdown(list(layout.columns), layout.to_numpy().tolist(), texts=3))
    told = [(checkpoint, *astuple(claim)) for checkpoint, of in claims.items() for claim in of]
    if told:
        files.append(place.with_name(f"{place.name}_claims.csv"))
        frame = pd.DataFrame(told, columns=["model", "task", "claim", "printed", "ours", "note"])
        write_atomically(files[-1], frame.to_csv(index=False, lineterminator="\n"))
    return Reproduced(layout, claims, swept, tuple(files))


def beside(claim: Claim, checkpoint: str, target: Target, table: pd.DataFrame) -> Claim:
    """Takes the paper's number out of a claim that it makes of another checkpoint, another set or other settings.

    Args:
        claim: As the target makes it.
        checkpoint: Whose number ours is.
        target: Which checkpoints the paper shows, and which option it varies.
        table: The tidy table of the runs that ours comes from.

    Returns:
        The claim; without a number it says why.
    """
    if printed_model(checkpoint) not in target.models:
        return replace(claim, printed="", why=f"the paper shows {', '.join(target.models)}")
    if claim.task not in BENCHMARK_OF:
        return replace(claim, printed="", why=f"the paper does not know {claim.task}")
    runs = set(zip(table["method"], table["method_args"], strict=True))
    other = {option for run in runs for option in not_the_papers(checkpoint, *run, target.varied)}
    if other:
        return replace(claim, printed="", why=f"not the paper's: {', '.join(sorted(other))}")
    return claim


# ---- the layout ------------------------------------------------------------------------------------------------------
def laid_out(
    target: Target,
    found: Mapping[str, pd.DataFrame],
    unfit: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """Lays a printed table out with ours beside it.

    Args:
        target: Which table, and which checkpoints it shows.
        found: Tidy tables of the runs, by checkpoint.
        unfit: Why variants could not be run, by checkpoint and variant.

    Returns:
        The layout; see `Reproduced`.
    """
    ours = {printed_model(checkpoint): checkpoint for checkpoint in found if printed_model(checkpoint)}
    reasons = {c: {v: f"not run: {reason}" for v, reason in of.items()} for c, of in (unfit or {}).items()}
    lines: list[dict[str, str]] = []
    rows = [row for row in tables() if row.table == target.table]
    for row in rows:
        model = row.model.removesuffix("-7B")
        note = _why_not(model, target, ours) or reasons.get(ours[model], {}).get(_variant(row), "")
        lines.append(_line(model, row, "printed", {name: row.cells.get(name, "") for name in (*SETS, "average")}, note))
        if not note:
            table = found[ours[model]]
            lines += _ours(model, _variant(row), table, _printed(ours[model], row, table))
    for checkpoint, table in found.items():
        shown = {_variant(row) for row in rows} if checkpoint in ours.values() else set()
        for variant in dict.fromkeys(table["variant"]):
            if variant not in shown:
                lines += _ours(checkpoint, str(variant), table)
        for variant, reason in reasons.get(checkpoint, {}).items():
            if variant not in shown:
                lines.append(_line(checkpoint, variant, "ours", {}, reason))
    return pd.DataFrame(lines, columns=list(_COLUMNS)).fillna("")


def _why_not(model: str, target: Target, ours: Mapping[str | None, str]) -> str:
    if model in ours:
        return ""
    if model in target.models:
        return f"not run: no checkpoint of {model} is given"
    return "not run: the paper takes it from elsewhere, and does not say how it was asked"


def _variant(row: PublishedRow) -> str:
    """Our variant of a printed row."""
    return row.scope or (BASELINE if row.method == "baseline" else row.method)


def _line(model: str, row: PublishedRow | str, kind: str, cells: Mapping[str, str], note: str = "") -> dict[str, str]:
    return {"model": model, "row": row if isinstance(row, str) else _variant(row), "kind": kind, **cells, "note": note}


def _ours(
    model: str, variant: str, table: pd.DataFrame, printed: Mapping[str, float] | None = None
) -> list[dict[str, str]]:
    """Our lines of a variant; `printed` holds the values to compare with, None where the paper has no such row."""
    rows = _by_set(table, variant)
    if not rows:
        return [_line(model, variant, "ours", {}, "not run: none of the tasks is one of the six sets")]
    scores = {benchmark: float(row["score"]) for benchmark, row in rows.items()}
    intervals = {b: f" [{row['ci95_low']:.2f}, {row['ci95_high']:.2f}]" for b, row in rows.items()}
    scores_and_mean = {**scores, **({"average": sum(scores.values()) / len(SETS)} if len(scores) == len(SETS) else {})}
    sizes = [int(row["n"]) for row in rows.values()]
    n = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    subset = any(pd.notna(row["limit"]) for row in rows.values())
    note = f"n = {n} per set" + (", a seeded subset" if subset else "")
    cells = {name: f"{value:.2f}{intervals.get(name, '')}" for name, value in scores_and_mean.items()}
    lines = [_line(model, variant, "ours", cells, note)]
    if printed is not None:
        shared = {name: f"{scores_and_mean[name] - value:+.2f}" for name, value in printed.items()}
        other = "" if shared else "not compared: the tasks or options are not the paper's"
        lines.append(_line(model, variant, "ours - printed", shared, other))
    if variant != BASELINE:
        differences = {
            benchmark: f"{row['delta']:+.2f} [{row['delta_ci95_low']:+.2f}, {row['delta_ci95_high']:+.2f}]"
            for benchmark, row in rows.items()
        }
        lines.append(_line(model, variant, "ours - vanilla", differences))
    return lines


def _by_set(table: pd.DataFrame, variant: str) -> dict[str, Any]:
    """A variant's rows of the tidy table, by set.

    Raises:
        OptionError: Two tasks are of one set.
    """
    rows: dict[str, Any] = {}
    for _, row in table[table["variant"] == variant].iterrows():
        benchmark = benchmark_of(str(row["task"]))
        if benchmark in SETS and rows.setdefault(benchmark, row) is not row:
            raise _doubled(benchmark, rows[benchmark]["task"], row["task"])
    return rows


def _printed(checkpoint: str, row: PublishedRow, table: pd.DataFrame) -> dict[str, float]:
    """The printed values of the experiments that we ran, by set; the average only where all six are among them."""
    found = {}
    for benchmark, of in _by_set(table, _variant(row)).items():
        value, _ = published_value(checkpoint, of["method"], str(of["method_args"]), of["task"], row.table)
        if value is not None:
            found[benchmark] = value
    return found | ({"average": float(row.cells["average"])} if len(found) == len(SETS) else {})


def _doubled(benchmark: str, *tasks: str) -> OptionError:
    return OptionError(f"tasks {' and '.join(tasks)} are both of {benchmark}, which has one column. Name one of them.")
