"""Runs as tables of documents: every score, the cluster it belongs to, the answer, and what the document was.

Rules:
* A document that is missing, twice there or scored with no number is named and refused.
* A failed document (its score is null) is kept; it makes the task's score invalid, which is not the same as 0.
* The main metric's logged scores must average to the score in the results file: otherwise the two files are not of one
  run. Another metric that does not average, because the task sums it or takes a rate of it, is left out with a note.
* Of the harness's own tasks the cluster is the document, because their sample files do not say which picture it had.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.files import RunFiles, find, load_results, load_samples
from lmms_ca_plugin.results.provenance import Provenance, provenance

_MAIN = ("vqa_accuracy", "vqa_exact", "exact_match", "anls")
_SAME = 1e-6


@dataclass(frozen=True)
class TaskRun:
    """One task of one run.

    Attributes:
        source: The sample file, or the name of a kept reference.
        provenance: Where the scores come from; None for a sample file without its results file.
        task: The harness's task name.
        split: The data's split.
        version: The task's version, which changes with its scorer.
        metrics: The metrics; the first is the main one.
        cluster_source: `image`, or `none` where each document is its own cluster.
        documents: By doc_id: `answer`, `cluster`, `identity` (a digest of the document), `prompt` (a digest of what the
            model was asked), and a column of scores from 0 to 1 per metric, NaN where the document failed.
    """

    source: str
    provenance: Provenance | None
    task: str
    split: str
    version: str
    metrics: tuple[str, ...]
    cluster_source: str
    documents: pd.DataFrame

    @property
    def main(self) -> str:
        """The main metric's name."""
        return self.metrics[0]

    @cached_property
    def asked(self) -> str:
        """A digest of which documents these are: their ids and what they were."""
        identities = self.documents["identity"].sort_index()
        return _digest([list(map(str, identities.index)), identities.tolist()])


def read_runs(paths: Sequence[Path]) -> tuple[list[TaskRun], list[str]]:
    """Reads every scored task of every run under some paths.

    Args:
        paths: Run folders, results files or sample files.

    Returns:
        The tasks' runs, oldest first, and notes on tasks that have no score on purpose (test splits).

    Raises:
        InputError: A file is not whole, or files do not belong together.
    """
    tasks: list[TaskRun] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        for files in find(path):
            key = (files.results or next(iter(files.samples.values()))).resolve()
            if path.is_dir() and key in seen:
                continue
            seen.add(key)
            found, said = _read_run(files)
            tasks += found
            notes += said
    if not tasks:
        raise InputError(f"No scored task in {', '.join(map(str, paths))}. {' '.join(notes)}".strip())
    return tasks, notes


def _read_run(files: RunFiles) -> tuple[list[TaskRun], list[str]]:
    """Reads one run's tasks."""
    if files.results is None:
        ((task, path),) = files.samples.items()
        samples = load_samples(path)
        metrics = _order(_logged_metrics(samples[0]))
        return [_task_run(path, None, task, "", "", metrics, samples)], []
    results = load_results(files.results)
    strangers = sorted(set(files.samples) - set(results["configs"]))
    if strangers:
        raise InputError(
            f"{files.results} knows no task {', '.join(strangers)}, but sample files of the same date lie beside it: "
            "two runs are mixed. Run them again with an --output_path of their own."
        )
    origin = provenance(results)
    tasks: list[TaskRun] = []
    notes: list[str] = []
    for task, config in results["configs"].items():
        scores = _numbers(results["results"].get(task, {}), results["higher_is_better"].get(task, {}))
        if "bypass" in scores:
            raise InputError(f"{files.results}: {task} was run with --predict_only and has no scores. Run it without.")
        if not scores:
            notes.append(f"{task} has no score: its answers are not public.")
            continue
        if task not in files.samples:
            raise InputError(
                f"{files.results} has scores of {task} but no {files.results.name.removesuffix('results.json')}"
                f"samples_{task}.jsonl beside it. Run with --log_samples: intervals need every document."
            )
        samples = load_samples(files.samples[task])
        _refuse_incomplete(files.samples[task], samples, results["n-samples"][task], results["config"])
        split = config.get("test_split") or config.get("validation_split") or ""
        version = str(results["versions"].get(task, ""))
        main, *others = _order(tuple(scores))
        means = [metric for metric in others if _averages(files.samples[task], samples, metric, scores[metric])]
        run = _task_run(files.samples[task], origin, task, split, version, (main, *means), samples)
        _refuse_disagreement(run, scores[main])
        tasks.append(run)
        left_out = [metric for metric in others if metric not in means]
        if left_out:
            notes.append(f"{task}: {', '.join(left_out)} left out, no mean of its documents' scores from 0 to 1.")
    return tasks, notes


def _numbers(aggregated: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, float]:
    """Picks the metrics with a number out of a task's results; submissions have none."""
    found: dict[str, float] = {}
    for key, value in aggregated.items():
        metric, comma, _ = key.partition(",")
        if comma and metric in metrics and isinstance(value, (int, float)) and not isinstance(value, bool):
            found[metric] = float(value)
    return found


def main_of(metrics: Sequence[str]) -> str:
    """Finds the main metric among a task's."""
    return next((metric for metric in _MAIN if metric in metrics), metrics[0])


def _order(metrics: Sequence[str]) -> tuple[str, ...]:
    """Puts the main metric first and keeps the rest in order."""
    main = main_of(metrics)
    return (main, *(metric for metric in metrics if metric != main))


def _logged_metrics(sample: Mapping[str, Any]) -> tuple[str, ...]:
    """Finds the metrics in a sample whose results file is not there."""
    found = tuple(
        key for key, value in sample.items() if (isinstance(value, dict) and "score" in value) or key in _MAIN
    )
    if not found:
        raise InputError(f"Document {sample['doc_id']} logs no score that is known: {', '.join(sample)}.")
    return found


def _refuse_incomplete(
    path: Path, samples: Sequence[Mapping[str, Any]], counts: Mapping[str, int], config: Mapping[str, Any]
) -> None:
    """Refuses a sample file that holds fewer or more documents than the run asked."""
    expected = min(counts["effective"], counts["original"] - int(config.get("offset") or 0))
    if len(samples) != expected:
        raise InputError(
            f"{path} holds {len(samples)} documents, the run had {expected}. "
            "The file is half-written or of another run; run it again."
        )


def is_score(logged: Any) -> bool:
    """Says whether what a document logs of a metric is a score: a number from 0 to 1, or a record of one."""
    value = logged.get("score") if isinstance(logged, dict) else logged
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _score(path: Path, sample: Mapping[str, Any], metric: str) -> float:
    """Reads a document's score; NaN where it is recorded as failed."""
    if metric not in sample:
        raise InputError(
            f"{path}: document {sample['doc_id']} has no {metric}, which the results file reports. "
            "It is a file of another task or of another scorer."
        )
    logged = sample[metric]
    if isinstance(logged, dict) and "score" not in logged:
        raise InputError(f"{path}: the {metric} of document {sample['doc_id']} has no score, but {', '.join(logged)}.")
    value = logged["score"] if isinstance(logged, dict) else logged
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{path}: the {metric} of document {sample['doc_id']} is {value!r}, which is no number.")
    if not 0 <= value <= 1:
        raise InputError(
            f"{path}: the {metric} of document {sample['doc_id']} is {value}; a score is a number from 0 to 1. "
            "A failed document logs null."
        )
    return float(value)


def _answer(sample: Mapping[str, Any]) -> str:
    """Reads the model's answer as it was scored."""
    logged = sample.get("filtered_resps", "")
    while isinstance(logged, list):
        logged = logged[0] if logged else ""
    return "" if logged is None else str(logged)


def _identity(sample: Mapping[str, Any], main: str) -> str:
    """Digests what a document was: its answers where they are logged, else its target and prompt."""
    logged = sample.get(main)
    asked = logged["answers"] if isinstance(logged, dict) and "answers" in logged else None
    what = asked if asked is not None else [sample.get("target"), sample.get("input")]
    return _digest(what)


def _digest(what: Any) -> str:
    """Digests anything JSON-able."""
    return hashlib.sha256(json.dumps(what, ensure_ascii=False).encode()).hexdigest()[:16]


def _task_run(
    path: Path,
    origin: Provenance | None,
    task: str,
    split: str,
    version: str,
    metrics: tuple[str, ...],
    samples: Sequence[Mapping[str, Any]],
) -> TaskRun:
    """Makes a task's table of documents."""
    main = metrics[0]
    logged = [sample.get(main) for sample in samples]
    clustered = all(isinstance(entry, dict) and entry.get("cluster") is not None for entry in logged)
    doc_ids = [sample["doc_id"] for sample in samples]
    columns: dict[str, Any] = {
        "answer": [_answer(sample) for sample in samples],
        "cluster": [str(sample[main]["cluster"]) for sample in samples] if clustered else [str(i) for i in doc_ids],
        "identity": [_identity(sample, main) for sample in samples],
        "prompt": [_digest(sample.get("input")) for sample in samples],
    }
    columns |= {metric: [_score(path, sample, metric) for sample in samples] for metric in metrics}
    documents = pd.DataFrame(columns, index=pd.Index(doc_ids, name="doc_id"))
    return TaskRun(str(path), origin, task, split, version, metrics, "image" if clustered else "none", documents)


def _averages(path: Path, samples: Sequence[Mapping[str, Any]], metric: str, reported: float) -> bool:
    """Whether a metric is the mean of its documents' scores; one that is not cannot be paired or bear an interval."""
    try:
        column = pd.Series([_score(path, sample, metric) for sample in samples])
    except InputError:
        return False
    return bool(column.isna().any()) or abs(float(column.mean()) - reported) <= _SAME


def _refuse_disagreement(run: TaskRun, reported: float) -> None:
    """Refuses sample scores that do not average to the reported score."""
    column = run.documents[run.main]
    mean = float(column.mean())
    if not column.isna().any() and not abs(mean - reported) <= _SAME:
        raise InputError(
            f"{run.source}: the documents' {run.main} averages to {mean:.6f}, the results file says {reported:.6f}. "
            f"The two files are not of one run, or {run.main} is no mean of documents' scores: only such can be paired."
        )
