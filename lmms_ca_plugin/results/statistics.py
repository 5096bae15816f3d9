"""Standard errors, intervals and paired tests for scores that cluster by image.

Every comparison is paired by document: two models on the same questions differ far less by chance than two means do.
Questions on one picture are not independent, so standard errors are clustered.

Sources: clustered standard error, Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), equation 4, which the
harness uses as well; exact McNemar test as in its textbook form (a binomial test on the discordant pairs).
Intervals are score intervals: of differences those of `bounds`, of scores Wilson's (`mean_interval`). t intervals are
too narrow where few documents changed, or few are wrong.
Scores are fractions from 0 to 1; whoever prints them multiplies by 100.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.bounds import MeanChange

Scores = npt.NDArray[np.float64]  # (documents,)

_RIGHT = 0.5  # from this score on an answer counts as right for McNemar's test
_ROUNDING = 1e-12  # sums of thirds and tenths are no nearer to 0 than this where they are not 0
_RESAMPLES = 10_000
_DRAWS_AT_ONCE = 5_000_000  # three arrays of so many numbers: some 120 MB


@dataclass(frozen=True)
class Interval:
    """A mean with its clustered standard error and interval."""

    mean: float
    stderr: float
    low: float
    high: float
    n: int
    n_clusters: int


@dataclass(frozen=True)
class McNemar:
    """Right and wrong answers that changed side, with the exact two-sided p-value."""

    fixed: int
    broken: int
    p_value: float


@dataclass(frozen=True)
class PairedDifference(MeanChange):
    """Candidate minus baseline over the same documents."""

    mcnemar: McNemar
    n: int
    improved: int
    worsened: int


def _codes(clusters: Sequence[Hashable], n: int) -> tuple[npt.NDArray[np.int64], int]:
    """Numbers the clusters by first appearance: (documents,) codes and how many there are."""
    if len(clusters) != n:
        raise InputError(f"{n} scores but {len(clusters)} clusters were given; there is one cluster per score.")
    seen: dict[Hashable, int] = {}
    codes = np.array([seen.setdefault(cluster, len(seen)) for cluster in clusters], dtype=np.int64)
    return codes, len(seen)


def _checked(name: str, scores: Sequence[float] | Scores) -> Scores:
    """Turns scores into an array and refuses an empty one and numbers that are none."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"The {name} scores have shape {values.shape}; a non-empty list of numbers is needed.")
    if not np.isfinite(values).all():
        where = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"The {name} score at position {where} is {values[where]}; scores must be finite numbers.")
    return values


def clustered_stderr(scores: Sequence[float] | Scores, clusters: Sequence[Hashable]) -> float:
    """Computes the standard error of a mean whose terms cluster.

    With every document in a cluster of its own it is the ordinary standard error, sd / sqrt(n).

    Args:
        scores: (documents,) any numbers.
        clusters: (documents,) the cluster of each.

    Returns:
        The standard error, in the scores' unit; NaN for a single document.

    Raises:
        InputError: No scores, scores that are not finite, or another number of clusters.
    """
    values = _checked("given", scores)
    n = values.size
    codes, _ = _codes(clusters, n)
    if n < 2:
        return float("nan")
    residuals = values - values.mean()
    residuals[np.abs(residuals) < _ROUNDING] = 0
    own = float(residuals @ residuals)
    sums = np.bincount(codes, weights=residuals)  # (clusters,)
    crossed = float(sums @ sums) - own
    return float(np.sqrt(own / ((n - 1) * n) + crossed / n**2))


def mean_interval(scores: Sequence[float] | Scores, clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Computes a mean score with its clustered interval.

    It is Wilson's score interval (1927) of as many right or wrong answers as have the same mean and standard error,
    with t in place of z; where every document scores the same, of as many as there are clusters.

    Args:
        scores: (documents,) scores from 0 to 1.
        clusters: (documents,) the cluster of each.
        level: The interval's coverage.

    Returns:
        Mean, standard error and interval; with a single cluster the latter two are NaN.

    Raises:
        InputError: As for `clustered_stderr`.
    """
    values = _checked("given", scores)
    _, n_clusters = _codes(clusters, values.size)
    mean = float(values.mean())
    stderr = clustered_stderr(values, clusters) if n_clusters > 1 else float("nan")
    t = float(stats.t.isf((1 - level) / 2, n_clusters - 1))
    answer = stderr**2 / (mean * (1 - mean)) if stderr > 0 else 1 / n_clusters  # its share in the mean
    centre, half = mean + t**2 * answer / 2, t * float(np.hypot(stderr, t * answer / 2))
    low, high = ((centre + side) / (1 + t**2 * answer) for side in (-half, half))
    low, high = float(np.clip(low, 0, mean)), float(np.clip(high, mean, 1))  # rounding reaches across 0, 1 and the mean
    return Interval(mean, stderr, low, high, values.size, n_clusters)


def bootstrap_interval(
    scores: Sequence[float] | Scores,
    clusters: Sequence[Hashable],
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> tuple[float, float]:
    """Computes the 95 % percentile interval of a mean by drawing whole clusters with replacement.

    Args:
        scores: (documents,) scores or differences.
        clusters: (documents,) the cluster of each, numbered by first appearance.
        seed: Of NumPy's PCG64 generator.
        resamples: How often to draw.

    Returns:
        The interval's ends, in the scores' unit.

    Raises:
        InputError: As for `clustered_stderr`.
    """
    values = _checked("given", scores)
    codes, n_clusters = _codes(clusters, values.size)
    sums = np.bincount(codes, weights=values)  # (clusters,)
    sizes = np.bincount(codes)  # (clusters,)
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n_clusters)
    means: list[Scores] = []
    for start in range(0, resamples, at_once):
        drawn = generator.integers(
            0, n_clusters, (min(at_once, resamples - start), n_clusters)
        )  # (resamples, clusters)
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))  # (resamples,)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def mcnemar_exact(baseline: Sequence[float] | Scores, candidate: Sequence[float] | Scores) -> McNemar:
    """Tests whether right answers (score at least 0.5) turned wrong as often as wrong ones turned right.

    Args:
        baseline: (documents,) scores from 0 to 1.
        candidate: (documents,) scores of the same documents.

    Returns:
        The counts and the exact two-sided p-value; 1 where nothing changed side.

    Raises:
        InputError: Scores that are not finite, or unequal lengths.
    """
    before, after = _pair(baseline, candidate)
    fixed = int(((before < _RIGHT) & (after >= _RIGHT)).sum())
    broken = int(((before >= _RIGHT) & (after < _RIGHT)).sum())
    changed = fixed + broken
    return McNemar(fixed, broken, float(stats.binomtest(fixed, changed).pvalue) if changed else 1.0)


def _pair(baseline: Sequence[float] | Scores, candidate: Sequence[float] | Scores) -> tuple[Scores, Scores]:
    """Checks both sides of a paired comparison."""
    before, after = _checked("baseline", baseline), _checked("candidate", candidate)
    if before.size != after.size:
        raise InputError(f"{before.size} baseline scores but {after.size} candidate scores: they are not paired.")
    return before, after


def _answers(change: Scores, codes: npt.NDArray[np.int64], n_clusters: int) -> float:
    """How many right or wrong answers a table has whose changes move the mean as far as these: the rule of `bounds`."""
    sums = np.bincount(codes, weights=change)  # (clusters,)
    moved = sums[np.abs(sums) > _ROUNDING]
    return float(change.size / np.sqrt((moved**2).mean())) if moved.size else float(n_clusters)


def paired_difference(
    baseline: Sequence[float] | Scores,
    candidate: Sequence[float] | Scores,
    clusters: Sequence[Hashable],
) -> PairedDifference:
    """Compares two models on the same documents, candidate minus baseline.

    Args:
        baseline: (documents,) scores from 0 to 1.
        candidate: (documents,) scores of the same documents in the same order.
        clusters: (documents,) the cluster of each.

    Returns:
        The difference with its standard error, interval and p-value, the exact McNemar test and counts. In the scores'
        unit.

    Raises:
        InputError: Scores that are not finite, or unequal lengths.
    """
    before, after = _pair(baseline, candidate)
    change = after - before
    codes, n_clusters = _codes(clusters, change.size)
    mean = float(change.mean())
    stderr = clustered_stderr(change, clusters) if n_clusters > 1 else float("nan")
    return PairedDifference(
        difference=mean,
        stderr=stderr,
        answers=_answers(change, codes, n_clusters),
        n_clusters=n_clusters,
        mcnemar=mcnemar_exact(before, after),
        n=change.size,
        improved=int((change > 0).sum()),
        worsened=int((change < 0).sum()),
    )
