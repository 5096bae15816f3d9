"""Whether a candidate lost against a baseline: one verdict per task, with the documents that changed.

Verdicts: `regressed` (Holm-adjusted p below alpha and a difference below minus the tolerance), `improved` (likewise),
`same` (the 90 % interval lies inside the tolerance either way, or no document changed), else `unclear`, with the number
of documents that would decide. Without a change the number of documents does not matter, though the interval of few is
wider than the tolerance: an identical checkpoint passes, and a note says how little that proves. Documents are paired
by id; those on one side only are counted and named. What cannot be compared is refused: a gate that compares something
else passes for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_ca_plugin.errors import InputError, unknown
from lmms_ca_plugin.results.multiplicity import ALPHA, holm
from lmms_ca_plugin.results.power import samples_to_decide
from lmms_ca_plugin.results.references import load_side
from lmms_ca_plugin.results.runs import TaskRun
from lmms_ca_plugin.results.statistics import PairedDifference, bootstrap_interval, paired_difference

FEWEST = 20
"""Below so many common documents no verdict is given."""
LEAST_SHARE = 0.9
"""Both sides must have at least this share of the larger side's documents in common."""

REGRESSED, IMPROVED, SAME, UNCLEAR = "regressed", "improved", "same", "unclear"


class CannotCompareError(InputError):
    """The two sides did not answer the same questions by the same rules."""


@dataclass(frozen=True)
class Rules:
    """When a difference counts.

    Attributes:
        tolerance: A loss up to this is accepted; as a fraction of the full score.
        alpha: Level of the test, after Holm's adjustment over the tasks.
    """

    tolerance: float = 0.01
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise InputError(f"The tolerance is {100 * self.tolerance:g} points; allowed is 0 to 100.")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; allowed is more than 0 and less than 1.")


@dataclass(frozen=True)
class Flip:
    """A document whose score changed, with both answers."""

    doc_id: int
    baseline_answer: str
    candidate_answer: str
    baseline_score: float
    candidate_score: float


@dataclass(frozen=True)
class TaskVerdict:
    """The comparison of one task. Scores and differences are fractions."""

    task: str
    metric: str
    verdict: str
    baseline_score: float
    candidate_score: float
    pair: PairedDifference
    bootstrap: tuple[float, float]
    p_holm: float
    samples_to_decide: int | None
    flips: tuple[Flip, ...]
    only_baseline: tuple[int, ...]
    only_candidate: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Regression:
    """All tasks of a comparison."""

    baseline: str
    candidate: str
    rules: Rules
    tasks: tuple[TaskVerdict, ...]
    notes: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        """Whether any task regressed."""
        return any(task.verdict == REGRESSED for task in self.tasks)


@dataclass(frozen=True)
class _Paired:
    """A task's common documents, before the verdict, which needs all tasks' p-values."""

    before: TaskRun
    after: TaskRun
    pair: PairedDifference
    bootstrap: tuple[float, float]
    common: tuple[int, ...]
    notes: tuple[str, ...]


def compare(
    baseline: str | Path, candidate: str | Path, rules: Rules | None = None, tasks: Sequence[str] = ()
) -> Regression:
    """Compares two sides.

    Args:
        baseline: A run folder, a sample file, or the name of a kept reference.
        candidate: Likewise.
        rules: Tolerance and alpha; by default 1 point and 0.05.
        tasks: Tasks to compare; by default all that the baseline has, and then the candidate must have them too.

    Returns:
        The verdicts, by task.

    Raises:
        CannotCompareError: Other data, another scorer, too few documents in common, or tasks that are missing.
        InputError: A side cannot be read.
    """
    rules = rules or Rules()
    before, after = load_side(baseline), load_side(candidate)
    chosen = _tasks(before, after, tasks, str(baseline), str(candidate))
    paired = {task: _pair(before[task], after[task]) for task in chosen}
    adjusted = holm({task: both.pair.p_value for task, both in paired.items()})
    notes = [f"{task} is in the candidate only and was not compared." for task in after if task not in before]
    return Regression(
        baseline=_name(str(baseline), before),
        candidate=_name(str(candidate), after),
        rules=rules,
        tasks=tuple(_verdict(both, adjusted[task], rules, len(paired)) for task, both in paired.items()),
        notes=tuple(notes),
    )


def _name(given: str, runs: dict[str, TaskRun]) -> str:
    """Names a side by what was given and what it holds."""
    origins = {(run.provenance.model, run.provenance.method) for run in runs.values() if run.provenance}
    return f"{given} ({', '.join(' '.join(origin) for origin in sorted(origins))})" if origins else given


def _tasks(
    before: dict[str, TaskRun], after: dict[str, TaskRun], tasks: Sequence[str], baseline: str, candidate: str
) -> list[str]:
    """Chooses the tasks and refuses those that a side lacks."""
    for task in tasks:
        if task not in before:
            raise unknown("task of the baseline", task, before)
    chosen = list(tasks) or list(before)
    missing = [task for task in chosen if task not in after]
    if missing:
        common = [task for task in before if task in after]
        advice = f" To compare the common ones only, give --tasks {','.join(common)}." if common else ""
        raise CannotCompareError(
            f"{candidate} has no {', '.join(missing)}, which {baseline} has (it has {', '.join(after)}).{advice}"
        )
    return chosen


def _pair(before: TaskRun, after: TaskRun) -> _Paired:
    """Pairs two runs of a task, or says why they cannot be."""
    metric, task = before.main, before.task
    if metric != after.main or (before.version and after.version and before.version != after.version):
        raise CannotCompareError(
            f"{task}: the baseline was scored by {metric}, version {before.version or 'unknown'}, the candidate by "
            f"{after.main}, version {after.version or 'unknown'}. Score both by the same version."
        )
    common = before.documents.index.intersection(after.documents.index).sort_values()
    larger = max(len(before.documents), len(after.documents))
    if len(common) < max(FEWEST, LEAST_SHARE * larger):
        raise CannotCompareError(
            f"{task}: {len(common)} documents are in common, of {len(before.documents)} in the baseline and "
            f"{len(after.documents)} in the candidate. At least {FEWEST}, and {LEAST_SHARE:.0%} of the larger side, "
            f"are needed: run both with the same --limit, {FEWEST} or more."
        )
    left, right = before.documents.loc[common], after.documents.loc[common]
    other = [int(doc_id) for doc_id in common[left["identity"] != right["identity"]]]
    if other:
        raise CannotCompareError(
            f"{task}: {len(other)} of {len(common)} documents are not the same on both sides, the first is {other[0]}. "
            "They bear the same ids but other answers or prompts: the data or the task changed."
        )
    for side, run, table in (("baseline", before, left), ("candidate", after, right)):
        failed = [int(doc_id) for doc_id in common[table[metric].isna()]]
        if failed:
            raise CannotCompareError(
                f"{task}: {len(failed)} documents of the {side} failed, the first is {failed[0]} ({run.source}). "
                "A failure is no score; run them again."
            )
    clusters = left["cluster"] if before.cluster_source == "image" else right["cluster"]
    if clusters.nunique() < 2:
        raise CannotCompareError(f"{task}: all documents show one picture, so that there is no standard error.")
    old, new, of = left[metric].to_numpy(), right[metric].to_numpy(), clusters.tolist()
    pair = paired_difference(old, new, of)
    notes = [] if "image" in (before.cluster_source, after.cluster_source) else ["standard error is not clustered"]
    notes += [
        f"the {side}'s version is not known"
        for side, run in (("baseline", before), ("candidate", after))
        if not run.version
    ]
    if before.provenance and after.provenance and (names := before.provenance.asked_otherwise(after.provenance)):
        notes.append(f"run with another {', '.join(names)}, so that the difference is not the model's alone")
    if asked := int((left["prompt"] != right["prompt"]).sum()):
        notes.append(f"the prompts differ in {asked} documents, so that the difference is not the model's alone")
    if not pair.improved and not pair.worsened:
        bound = 1 - 0.05 ** (1 / pair.n_clusters)
        notes.append(f"no document changed; at 95 %, at most {bound:.1%} of such pictures would")
    drawn = bootstrap_interval(new - old, of)
    return _Paired(before, after, pair, drawn, tuple(int(doc_id) for doc_id in common), tuple(notes))


def judge(pair: PairedDifference, p_holm: float, rules: Rules) -> str:
    """Judges one task's difference.

    Args:
        pair: The difference.
        p_holm: Its p-value, adjusted over the tasks of the comparison.
        rules: Tolerance and alpha.

    Returns:
        `regressed`, `improved`, `same` or `unclear`.
    """
    if p_holm < rules.alpha and abs(pair.difference) > rules.tolerance:
        return REGRESSED if pair.difference < 0 else IMPROVED
    low, high = pair.interval(0.90)
    inside = low >= -rules.tolerance and high <= rules.tolerance
    unchanged = not pair.improved and not pair.worsened  # how far that carries stands in a note
    return SAME if inside or unchanged else UNCLEAR


def _verdict(both: _Paired, p_holm: float, rules: Rules, tasks: int) -> TaskVerdict:
    """Judges one task and lists what changed."""
    pair, metric = both.pair, both.before.main
    verdict = judge(pair, p_holm, rules)
    decide = None
    if verdict == UNCLEAR:
        decide = samples_to_decide(pair, rules.tolerance, rules.alpha, tasks=tasks)
    left, right = both.before.documents.loc[list(both.common)], both.after.documents.loc[list(both.common)]
    changed = left.index[left[metric] != right[metric]]
    old, new = left.loc[changed], right.loc[changed]
    rows = zip(changed, old["answer"], new["answer"], old[metric], new[metric], strict=True)
    flips = tuple(Flip(int(doc_id), str(a), str(b), float(s), float(t)) for doc_id, a, b, s, t in rows)
    common = set(both.common)
    return TaskVerdict(
        task=both.before.task,
        metric=metric,
        verdict=verdict,
        baseline_score=float(left[metric].mean()),
        candidate_score=float(right[metric].mean()),
        pair=pair,
        bootstrap=both.bootstrap,
        p_holm=p_holm,
        samples_to_decide=decide,
        flips=tuple(sorted(flips, key=lambda flip: (flip.candidate_score - flip.baseline_score, flip.doc_id))),
        only_baseline=tuple(int(i) for i in both.before.documents.index if i not in common),
        only_candidate=tuple(int(i) for i in both.after.documents.index if i not in common),
        notes=both.notes,
    )
