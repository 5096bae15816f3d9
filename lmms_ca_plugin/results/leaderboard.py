"""From runs to leaderboard rows: scores with intervals, paired differences to the baseline, published values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.errors import InputError, nearest
from lmms_ca_plugin.results.comparisons import adjusted
from lmms_ca_plugin.results.provenance import Provenance
from lmms_ca_plugin.results.published import published_value
from lmms_ca_plugin.results.runs import TaskRun, read_runs
from lmms_ca_plugin.results.schema import BASELINE, KEY, Row, Value, read_csv, to_csv
from lmms_ca_plugin.results.statistics import PairedDifference, mean_interval, paired_difference


@dataclass(frozen=True)
class Leaderboard:
    """The rows of one leaderboard, and what was left out or replaced on the way."""

    rows: list[Row]
    notes: list[str]


def _origin(run: TaskRun) -> Provenance:
    """The run's provenance; a lone sample file has none and earns no row."""
    if run.provenance is None:
        raise InputError(f"{run.source} has no results file beside it, so that nobody knows which model it scores.")
    return run.provenance


def _newest(runs: Sequence[TaskRun]) -> list[TaskRun]:
    """Keeps the newest run of each measurement, in the runs' order."""
    newest: dict[tuple[str, ...], TaskRun] = {}
    for run in runs:
        origin = _origin(run)
        what = (origin.model, origin.revision, origin.method, origin.method_args, origin.seed, origin.dtype)
        key = (*what, run.task, run.split, run.asked)
        if key not in newest or origin.date >= _origin(newest[key]).date:
            newest[key] = run
    kept = {id(run) for run in newest.values()}
    return [run for run in runs if id(run) in kept]


def _refuse_mixed_versions(runs: Sequence[TaskRun]) -> None:
    """Refuses one task scored by two versions of its scorer."""
    first: dict[str, TaskRun] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        if other.version != run.version or other.metrics != run.metrics:
            raise InputError(
                f"{run.task} was scored by version {other.version} ({', '.join(other.metrics)}) in {other.source} and "
                f"by version {run.version} ({', '.join(run.metrics)}) in {run.source}: they cannot share a table."
            )


def _baseline_of(run: TaskRun, runs: Sequence[TaskRun], method: str) -> TaskRun | None:
    """Finds the newest baseline run of the same checkpoint, task, documents and inputs.

    Some entries tell no revision, dtype or inputs of their own; what is not known does not stand in the way.

    Raises:
        InputError: The documents bear the same ids but are others.
    """
    same = [other for other in _baselines(run, runs, method) if not _origin(run).asked_otherwise(_origin(other))]
    base = max(same, key=lambda other: _origin(other).date, default=None)
    if base is not None and not run.documents["identity"].equals(base.documents["identity"]):
        raise InputError(f"{run.source} and its baseline {base.source} bear the same ids but other questions.")
    return base


def _baselines(run: TaskRun, runs: Sequence[TaskRun], method: str) -> list[TaskRun]:
    """Lists the baseline's runs of the same checkpoint, task and documents, whatever their inputs."""
    mine = _origin(run)
    return [
        other
        for other in runs
        if (_origin(other).method, _origin(other).model) == (method, mine.model)
        and mine.method != method
        and (_origin(other).revision == mine.revision or not _origin(other).revision or not mine.revision)
        and other.task == run.task
        and other.documents.index.equals(run.documents.index)
    ]


def _differences(
    kept: Sequence[TaskRun], runs: Sequence[TaskRun], method: str
) -> dict[tuple[int, str], PairedDifference]:
    """Pairs every kept run with its baseline among all runs: the difference by run and metric."""
    found: dict[tuple[int, str], PairedDifference] = {}
    for run in kept:
        base = _baseline_of(run, runs, method)
        if base is None or run.documents[run.main].isna().any() or base.documents[run.main].isna().any():
            continue
        for metric in run.metrics:
            before, after = base.documents[metric].to_numpy(), run.documents[metric].to_numpy()
            found[id(run), metric] = paired_difference(before, after, run.documents["cluster"].tolist())
    return found


def _unpaired(kept: Sequence[TaskRun], runs: Sequence[TaskRun], method: str) -> list[str]:
    """Says which runs have no difference although somebody might expect one, and why."""
    if not any(_origin(run).method == method for run in runs):
        return [f"no run of {method} is among these, so there are no differences to it."]
    notes = []
    for run in kept:
        others = _baselines(run, runs, method)
        ways = [_origin(run).asked_otherwise(_origin(other)) for other in others]
        if ways and all(ways):
            notes.append(f"{run.source}: no difference, because {method} was run with another {', '.join(ways[-1])}.")
    return notes


def _row(run: TaskRun, metric: str, pair: PairedDifference | None, baseline: str) -> Row:
    """Makes one row; its numbers are empty where the run has failed documents."""
    origin, documents = _origin(run), run.documents
    failed = int(documents[metric].isna().sum())
    empty = int((documents["answer"].str.strip() == "").sum())
    row: Row = {name: getattr(origin, name) for name in ("model", "revision", "method", "method_args")}
    row |= {"task": run.task, "split": run.split, "metric": metric, "cluster_source": run.cluster_source}
    row |= {"n": len(documents), "documents": run.asked, "n_failed": failed, "n_empty": empty}
    if not failed:
        found = mean_interval(documents[metric].to_numpy(), documents["cluster"].tolist())
        scores: dict[str, Value] = {"score": found.mean, "stderr": found.stderr}
        scores |= {"ci95_low": found.low, "ci95_high": found.high}
        if pair is not None:
            scores |= {"delta": pair.difference, "delta_ci95_low": pair.low, "delta_ci95_high": pair.high}
            row |= {"p_value": pair.p_value, "baseline": baseline}
        row |= {name: 100 * value for name, value in scores.items() if isinstance(value, float)}
    if metric == run.main:
        value, source = published_value(origin.model, origin.method, origin.method_args, run.task)
        row |= {"published": value, "published_source": source}
    names = (
        "seconds samples_per_second peak_memory_gib batch_size dtype device seed lmms_eval transformers torch plugin"
    )
    return row | {name: getattr(origin, name) for name in (*names.split(), "commit", "date", "command")}


def merge(rows: Iterable[Row], history: bool = False) -> list[Row]:
    """Merges rows of the same measurement: the newest wins, and of one run the row that has a difference.

    Args:
        rows: Rows, old and new.
        history: Keep all that differ in their date.

    Returns:
        The rows that stay.
    """
    newest: dict[tuple[Value, ...], Row] = {}
    for row in rows:
        key = _dated(row) if history else _dated(row)[:-1]
        if key not in newest or _rank(row) >= _rank(newest[key]):
            newest[key] = row
    return adjusted(list(newest.values()))


def _rank(row: Row) -> tuple[str, bool]:
    """What makes a row the better one of a measurement."""
    return str(row.get("date")), row.get("delta") is not None


def _dated(row: Row) -> tuple[Value, ...]:
    """A measurement and when it was taken."""
    return tuple(row.get(column) for column in (*KEY, "date"))


def leaderboard(
    paths: Sequence[Path], output: Path | None = None, baseline: str = BASELINE, history: bool = False
) -> Leaderboard:
    """Reads runs, merges them with what the file holds, and writes it.

    Args:
        paths: Run folders.
        output: The CSV; None writes nothing.
        baseline: The method that differences are taken to.
        history: Keep older runs of the same measurement too.

    Returns:
        The rows and notes.

    Raises:
        InputError: An input is not whole or does not fit the others, or none is of a baseline other than vanilla; the
            file is then left as it was.
    """
    runs, notes = read_runs(paths)
    _refuse_mixed_versions(runs)
    methods = {_origin(run).method for run in runs}
    if baseline not in {BASELINE, *methods}:
        raise InputError(
            f"baseline={baseline}: none of these runs is of it.{nearest(baseline, methods)} Methods among them: "
            f"{', '.join(sorted(methods))}."
        )
    kept = runs if history else _newest(runs)
    found = _differences(kept, runs, baseline)
    rows = [_row(run, metric, found.get((id(run), metric)), baseline) for run in kept for metric in run.metrics]
    notes += _unpaired(kept, runs, baseline)
    if older := len(runs) - len(kept):
        notes.append(f"{older} older runs of the same measurement were left out; --history keeps them.")
    before = read_csv(output) if output is not None and output.exists() else []
    merged = merge([*before, *rows], history)
    if replaced := len({_dated(row) for row in [*before, *rows]} - {_dated(row) for row in merged}):
        notes.append(f"{replaced} older rows of the same measurement were replaced; --history keeps them.")
    paired = [{_dated(row)[:-1] for row in table if row.get("delta") is not None} for table in (before, merged)]
    if lost := len(paired[0] - paired[1]):
        notes.append(
            f"{lost} rows lost their difference to a newer run without one: give the baseline's run beside it."
        )
    if output is not None:
        write_atomically(output, to_csv(merged))
    return Leaderboard(merged, notes)
