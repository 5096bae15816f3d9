"""A study as one tidy table: a row per variant and task, with what was paired, clustered and adjusted.

Rule: differences are to `vanilla` on the same documents. P-values are adjusted (Holm) over all variants and tasks of
the study, because that is how many chances a reader has of seeing something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.study import Finished, Variant
from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.runs import TaskRun, read_runs
from lmms_ca_plugin.results.statistics import mean_interval, paired_difference

BASELINE = "vanilla"
COLUMNS = (
    *("study", "variant", "method", "method_args", "x", "task", "metric", "score", "stderr", "ci95_low", "ci95_high"),
    *(
        "n",
        "n_clusters",
        "cluster_source",
        "delta",
        "delta_ci95_low",
        "delta_ci95_high",
        "p_value",
        "p_holm",
        "n_empty",
        "n_runaway",
    ),
    *("n_same", "seconds_per_question", "limit", "seed", "batch_size"),
)


def tidy(finished: Finished, seconds: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Tabulates a study.

    Args:
        finished: The study.
        seconds: Seconds per question of variants that were timed alone.

    Returns:
        A row per variant and task, columns `COLUMNS`. Scores and differences in percent; `n_runaway` counts answers
        that reached the token limit, `n_same` documents for which another variant decided the same.

    Raises:
        InputError: A variant's files are not whole.
    """
    study = finished.study
    runs = {v.name: {run.task: run for run in read_runs([finished.results[v.name]])[0]} for v in study.variants}
    timed = dict(seconds or {})
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        for task, run in runs[variant.name].items():
            answers = [answer for (of, _), answer in finished.answers[variant.name].items() if of == task]
            row = _row(variant, run, answers, runs.get(BASELINE, {}).get(task))
            row |= {"study": study.name, "seconds_per_question": timed.get(variant.name), "limit": study.limit}
            rows.append(row | {"seed": study.seed, "batch_size": study.batch_size})
    # One cluster has no p-value (NaN), and so is no chance of seeing something.
    tested = {str(i): p for i, row in enumerate(rows) if (p := row["p_value"]) is not None and not math.isnan(p)}
    for number, p_holm in holm(tested).items():
        rows[int(number)]["p_holm"] = p_holm
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(variant: Variant, run: TaskRun, answers: Sequence[Answer], baseline: TaskRun | None) -> dict[str, Any]:
    documents, metric = run.documents, run.main
    clusters = documents["cluster"].tolist()
    found = mean_interval(documents[metric].to_numpy(), clusters)
    row: dict[str, Any] = {
        "variant": variant.name,
        "method": variant.method,
        "method_args": run.provenance.method_args if run.provenance else "",
        "x": variant.x,
        "task": run.task,
        "metric": metric,
        "score": 100 * found.mean,
        "stderr": 100 * found.stderr,
        "ci95_low": 100 * found.low,
        "ci95_high": 100 * found.high,
        "n": found.n,
        "n_clusters": found.n_clusters,
        "cluster_source": run.cluster_source,
        "p_value": None,
        "n_empty": sum(not answer.text for answer in answers),
        "n_runaway": sum(answer.runaway for answer in answers),
        "n_same": sum(answer.same_as is not None for answer in answers),
    }
    if baseline is not None and variant.name != BASELINE:
        pair = paired_difference(
            baseline.documents[metric].to_numpy(), documents[metric].to_numpy(), clusters, resamples=0
        )
        row |= {"delta": 100 * pair.difference, "delta_ci95_low": 100 * pair.low, "delta_ci95_high": 100 * pair.high}
        row["p_value"] = pair.p_value
    return row


def distances(answers: Mapping[Key, Answer]) -> pd.DataFrame:
    """Tabulates the distances that a variant logged.

    Args:
        answers: The variant's answers, whose logs hold `distances` by block.

    Returns:
        Columns `task, doc_id, layer, distance`.
    """
    rows = [
        (task, doc_id, int(layer), distance)
        for (task, doc_id), answer in answers.items()
        for layer, distance in answer.log["distances"].items()
    ]
    return pd.DataFrame(rows, columns=["task", "doc_id", "layer", "distance"])


def chosen(answers: Mapping[Key, Answer]) -> pd.DataFrame:
    """Counts how often each block was chosen as the pre-integrated one.

    Args:
        answers: A contrastive variant's answers, whose logs hold `pre_layer` and every candidate's distance.

    Returns:
        Columns `task, layer, share, n`: a row per task and candidate, shares of a task's n documents sum to 1.
    """
    candidates = sorted({int(layer) for answer in answers.values() for layer in answer.log["distances"]})
    rows = []
    for task in dict.fromkeys(task for task, _ in answers):
        of_task = [answer.log["pre_layer"] for (of, _), answer in answers.items() if of == task]
        rows += [(task, layer, fmean(pre == layer for pre in of_task), len(of_task)) for layer in candidates]
    return pd.DataFrame(rows, columns=["task", "layer", "share", "n"])
