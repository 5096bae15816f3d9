"""From runs to leaderboard rows: scores with intervals, paired differences to the baseline, published values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.multiplicity import holm
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
        what = (origin.model, origin.revision, origin.method, origin.method_args)
        key = (*what, run.task, run.split, str(len(run.documents)))
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
    """Finds the newest baseline run of the same checkpoint, task and documents; some entries tell no revision."""
    mine = _origin(run)
    if mine.method == method:
        return None
    same = [
        other
        for other in runs
        if (_origin(other).method, _origin(other).model) == (method, mine.model)
        and (_origin(other).revision == mine.revision or not _origin(other).revision or not mine.revision)
        and other.task == run.task
        and other.documents.index.equals(run.documents.index)
    ]
    return max(same, key=lambda other: _origin(other).date, default=None)


def _differences(runs: Sequence[TaskRun], method: str) -> dict[tuple[int, str], tuple[PairedDifference, float]]:
    """Pairs every run with its baseline: by run and metric, the difference and its Holm-adjusted p-value."""
    found: dict[tuple[int, str], PairedDifference] = {}
    family: dict[tuple[int, str], tuple[str, ...]] = {}
    for run in runs:
        base = _baseline_of(run, runs, method)
        if base is None or run.documents[run.main].isna().any() or base.documents[run.main].isna().any():
            continue
        if not run.documents["identity"].equals(base.documents["identity"]):
            raise InputError(f"{run.source} and its baseline {base.source} bear the same ids but other questions.")
        origin = _origin(run)
        for rank, metric in enumerate(run.metrics):
            before, after = base.documents[metric].to_numpy(), run.documents[metric].to_numpy()
            key = (id(run), metric)
            found[key] = paired_difference(before, after, run.documents["cluster"].tolist())
            family[key] = (origin.model, origin.revision, origin.method, origin.method_args, _role(rank, metric))
    adjusted: dict[tuple[int, str], tuple[PairedDifference, float]] = {}
    for group in set(family.values()):
        # One cluster has no p-value (NaN): its difference stands in the row without one.
        p_holm = holm({key: found[key].p_value for key in family if family[key] == group})
        adjusted |= {key: (found[key], p_value) for key, p_value in p_holm.items()}
    return adjusted


def _role(rank: int, metric: str) -> str:
    """Which metrics are one comparison over the tasks: the main ones, the overlap, the official ones."""
    return "main" if rank == 0 else metric if metric == "word_overlap" else "official"


def _row(run: TaskRun, metric: str, difference: tuple[PairedDifference, float] | None, baseline: str) -> Row:
    """Makes one row; its numbers are empty where the run has failed documents."""
    origin, documents = _origin(run), run.documents
    failed = int(documents[metric].isna().sum())
    empty = int((documents["answer"].str.strip() == "").sum())
    row: Row = {name: getattr(origin, name) for name in ("model", "revision", "method", "method_args")}
    row |= {"task": run.task, "split": run.split, "metric": metric, "cluster_source": run.cluster_source}
    row |= {"n": len(documents), "n_failed": failed, "n_empty": empty}
    if not failed:
        found = mean_interval(documents[metric].to_numpy(), documents["cluster"].tolist())
        scores: dict[str, Value] = {"score": found.mean, "stderr": found.stderr}
        scores |= {"ci95_low": found.low, "ci95_high": found.high}
        if difference is not None:
            pair, p_holm = difference
            scores |= {"delta": pair.difference, "delta_ci95_low": pair.low, "delta_ci95_high": pair.high}
            row |= {"p_value": pair.p_value, "p_holm": p_holm, "baseline": baseline}
        row |= {name: 100 * value for name, value in scores.items() if isinstance(value, float)}
    if metric == run.main:
        value, source = published_value(origin.model, origin.method, origin.method_args, run.task)
        row |= {"published": value, "published_source": source}
    names = (
        "seconds samples_per_second peak_memory_gib batch_size dtype device seed lmms_eval transformers torch plugin"
    )
    return row | {name: getattr(origin, name) for name in (*names.split(), "commit", "date", "command")}


def build(runs: Sequence[TaskRun], baseline: str = BASELINE, history: bool = False) -> list[Row]:
    """Makes the rows of some runs.

    Args:
        runs: Tasks' runs.
        baseline: The method that differences are taken to, on the same checkpoint and documents.
        history: Keep older runs of the same measurement too.

    Returns:
        One row per run, task and metric.

    Raises:
        InputError: Versions of a task's scorer are mixed, or runs of one task asked other questions.
    """
    _refuse_mixed_versions(runs)
    kept = list(runs) if history else _newest(runs)
    differences = _differences(kept, baseline)
    return [_row(run, metric, differences.get((id(run), metric)), baseline) for run in kept for metric in run.metrics]


def merge(rows: Iterable[Row], history: bool = False) -> list[Row]:
    """Merges rows of the same measurement: the newest wins.

    Args:
        rows: Rows, old and new.
        history: Keep all that differ in their date.

    Returns:
        The rows that stay.
    """
    newest: dict[tuple[Value, ...], Row] = {}
    for row in rows:
        key = _dated(row) if history else _dated(row)[:-1]
        if key not in newest or str(row.get("date")) >= str(newest[key].get("date")):
            newest[key] = row
    return list(newest.values())


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
        InputError: An input is not whole or does not fit the others; the file is then left as it was.
    """
    runs, notes = read_runs(paths)
    rows = build(runs, baseline, history)
    if not history and (older := len(runs) - len(_newest(runs))):
        notes.append(f"{older} older runs of the same measurement were left out; --history keeps them.")
    before = read_csv(output) if output is not None and output.exists() else []
    merged = merge([*before, *rows], history)
    if replaced := len({_dated(row) for row in [*before, *rows]} - {_dated(row) for row in merged}):
        notes.append(f"{replaced} older rows of the same measurement were replaced; --history keeps them.")
    if output is not None:
        write_atomically(output, to_csv(merged))
    return Leaderboard(merged, notes)
