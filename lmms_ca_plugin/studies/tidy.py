"""A study as one tidy table: a row per variant and task, with what was paired, clustered and adjusted.

Rule: differences are to `vanilla` on the same documents. P-values are adjusted (Holm) over all variants and tasks of
the study, because that is how many chances a reader has of seeing something. Where a study has a variant `default`, the
others' differences to it stand in columns `default_*`, adjusted among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.engine.timing import Timed
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.runs import TaskRun, read_runs
from lmms_ca_plugin.results.schema import BASELINE
from lmms_ca_plugin.results.statistics import mean_interval, paired_difference

DEFAULT = "default"
"""A variant of this name is a second baseline: what differs from it by one option is paired with it, too."""
_DIFFERENCE = ("delta", "delta_ci95_low", "delta_ci95_high", "p_value", "p_holm")
COLUMNS = (
    *("study", "variant", "method", "method_args", "x", "task", "metric", "score", "stderr", "ci95_low", "ci95_high"),
    *("n", "n_clusters", "cluster_source", *_DIFFERENCE, "n_empty", "n_runaway", "n_same", "seconds_per_question"),
    *("n_alone", "n_alone_differ", "alone_margin", "limit", "seed", "batch_size"),
    *(f"{DEFAULT}_{name}" for name in _DIFFERENCE),
)


def tidy(finished: Finished, alone: Mapping[str, Mapping[str, Timed]] | None = None) -> pd.DataFrame:
    """Tabulates a study.

    Args:
        finished: The study.
        alone: By variant and task, runs alone on some of its questions.

    Returns:
        A row per variant and task, columns `COLUMNS`. Scores and differences in percent; `n_runaway` counts answers
        that reached the token limit, `n_same` documents for which another variant decided the same, `n_alone` answers
        of a run alone, `n_alone_differ` those that differ from the study's; `alone_margin` is the largest of their
        logit margins (`engine.agreement.Agreement`).

    Raises:
        InputError: A variant's files are not whole.
    """
    study = finished.study
    # Two variants stay at hand; all of them, with every answer of full sets, would be gigabytes.
    paired = {v.name: _runs(finished, v) for v in study.variants if v.name in (BASELINE, DEFAULT)}
    alone = alone or {}
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        for task, run in (paired.get(variant.name) or _runs(finished, variant)).items():
            answers = {key: answer for key, answer in finished.answers[variant.name].items() if key[0] == task}
            row = _row(variant, run, list(answers.values()))
            if variant.name != BASELINE and task in paired.get(BASELINE, {}):
                row |= _paired(run, paired[BASELINE][task])
            if variant.name not in (BASELINE, DEFAULT) and task in paired.get(DEFAULT, {}):
                row |= {f"{DEFAULT}_{name}": value for name, value in _paired(run, paired[DEFAULT][task]).items()}
            if task in alone.get(variant.name, {}):
                row |= _alone(answers, alone[variant.name][task])
            row |= {"study": study.name, "limit": study.limit, "seed": study.seed, "batch_size": study.batch_size}
            rows.append(row)
    for prefix in ("", f"{DEFAULT}_"):
        # The baseline's own rows and one cluster have no p-value.
        p_values = {i: row.get(f"{prefix}p_value", math.nan) for i, row in enumerate(rows)}
        for i, p_holm in holm(p_values).items():
            rows[i][f"{prefix}p_holm"] = p_holm
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _runs(finished: Finished, variant: Variant) -> dict[str, TaskRun]:
    return {run.task: run for run in read_runs([finished.results[variant.name]])[0]}


def _row(variant: Variant, run: TaskRun, answers: Sequence[Answer]) -> dict[str, Any]:
    documents, metric = run.documents, run.main
    clusters = documents["cluster"].tolist()
    found = mean_interval(documents[metric].to_numpy(), clusters)
    return {
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
        "n_empty": sum(not answer.text for answer in answers),
        "n_runaway": sum(answer.runaway for answer in answers),
        "n_same": sum(answer.same_as is not None for answer in answers),
    }


def agreement(together: Mapping[Key, Answer], alone: Timed) -> Agreement:
    """Compares answers of a study with those of a run alone, on the questions that both were asked."""
    keys = [key for key in alone.answers if key in together]
    return Agreement.of([together[key] for key in keys], [alone.answers[key] for key in keys])


def _alone(answers: Mapping[Key, Answer], alone: Timed) -> dict[str, Any]:
    found = agreement(answers, alone)
    counts = {"n_alone": found.compared, "n_alone_differ": found.differing, "alone_margin": found.widest}
    return {"seconds_per_question": alone.seconds, **counts}


def _paired(run: TaskRun, baseline: TaskRun) -> dict[str, Any]:
    """The difference to the same documents of another variant, percent."""
    before, after = (of.documents[run.main].to_numpy() for of in (baseline, run))
    pair = paired_difference(before, after, run.documents["cluster"].tolist())
    found = {"delta": pair.difference, "delta_ci95_low": pair.low, "delta_ci95_high": pair.high}
    return {name: 100 * value for name, value in found.items()} | {"p_value": pair.p_value}


def distances(answers: Mapping[Key, Answer]) -> pd.DataFrame:
    """Tabulates the distances that a variant logged.

    Args:
        answers: The variant's answers, whose logs hold `distances` by block.

    Returns:
        Columns `task, doc_id, layer, distance`; a question without a picture has none.

    Raises:
        InputError: No question has a picture.
    """
    rows = [
        (task, doc_id, int(layer), distance)
        for (task, doc_id), answer in sorted(_with_pictures(answers).items())
        for layer, distance in answer.log["distances"].items()
    ]
    return pd.DataFrame(rows, columns=["task", "doc_id", "layer", "distance"])


def _with_pictures(answers: Mapping[Key, Answer]) -> Mapping[Key, Answer]:
    seen = {key: answer for key, answer in answers.items() if answer.image_tokens}
    if not seen:
        raise InputError("No question of these tasks shows a picture, so there is no attention over one to compare.")
    return seen


def chosen(answers: Mapping[Key, Answer]) -> pd.DataFrame:
    """Counts how often each block was chosen as the pre-integrated one.

    Args:
        answers: A contrastive variant's answers, whose logs hold `pre_layer` and every candidate's distance.

    Returns:
        Columns `task, layer, share, n`: a row per task and candidate, shares of a task's n documents sum to 1; a
        question without a picture chooses none.

    Raises:
        InputError: No question has a picture.
    """
    answers = _with_pictures(answers)
    candidates = sorted({int(layer) for answer in answers.values() for layer in answer.log["distances"]})
    rows = []
    for task in sorted({task for task, _ in answers}):
        of_task = [answer.log["pre_layer"] for (of, _), answer in answers.items() if of == task]
        rows += [(task, layer, fmean(pre == layer for pre in of_task), len(of_task)) for layer in candidates]
    return pd.DataFrame(rows, columns=["task", "layer", "share", "n"])
