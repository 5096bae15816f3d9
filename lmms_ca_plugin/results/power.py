"""How many paired documents a difference needs, and how small a difference so many can show.

Source: the usual normal approximation, n = ((z_alpha/2 + z_power) * sd / difference)^2, with the design effect
1 + (size - 1) * correlation of equal clusters. For answers that are right or wrong the standard deviation of the paired
change follows from the share of answers that flip: sqrt(flips - difference^2).
"""

from __future__ import annotations

import math

from scipy.optimize import bisect
from scipy.stats import norm

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.multiplicity import ALPHA
from lmms_ca_plugin.results.statistics import PairedDifference

POWER = 0.8


def _within(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number that is not strictly between two bounds."""
    if not low < value < high:
        raise InputError(f"{name} is {value}; allowed is more than {low:g} and less than {high:g}.")


def _check_difference(difference: float) -> None:
    """Refuses what no two mean scores can differ by."""
    if not abs(difference) <= 1:
        raise InputError(f"The difference is {100 * difference:g} points; allowed is at most 100, either way.")


def change_sd(flips: float, difference: float = 0.0) -> float:
    """Computes the standard deviation of a document's change when answers are right or wrong.

    Args:
        flips: Share of the documents whose answer changes side, from 0 to 1.
        difference: Mean change, from -1 to 1; at most `flips` in size.

    Returns:
        The standard deviation of the change, as a fraction of a document's full score.

    Raises:
        InputError: The share is not from 0 to 1, or smaller than the difference it is to bring about; or that is none.
    """
    _check_difference(difference)
    if not 0 < flips <= 1:
        raise InputError(f"The share of flipped answers is {flips}; allowed is more than 0 and at most 1.")
    if abs(difference) > flips:
        raise InputError(
            f"A difference of {100 * difference:g} points cannot come from {100 * flips:g} % flipped answers; "
            "give a larger share of flips."
        )
    return math.sqrt(flips - difference**2)


def design_effect(cluster_size: float, correlation: float) -> float:
    """Computes by what factor clusters of equal size inflate the variance of a mean.

    Args:
        cluster_size: Documents per cluster, at least 1.
        correlation: Of two changes within a cluster, 0 to 1.

    Returns:
        The factor, at least 1.

    Raises:
        InputError: An argument is out of its range.
    """
    if not 1 <= cluster_size < math.inf or not 0 <= correlation <= 1:
        raise InputError(
            f"cluster_size={cluster_size}, correlation={correlation} is not allowed. Allowed: a cluster size of at "
            "least 1, a correlation from 0 to 1."
        )
    return 1 + (cluster_size - 1) * correlation


def _sum_of_quantiles(alpha: float, power: float, tasks: int) -> float:
    """Z of the two-sided level, shared among the tasks in the worst case of Holm's rule, plus z of the power."""
    _within("alpha", alpha, 0, 1)
    _within("power", power, 0, 1)
    if tasks < 1:
        raise InputError(f"{tasks} tasks were given; at least 1 is needed.")
    return float(norm.ppf(1 - alpha / (2 * tasks)) + norm.ppf(power))


def samples_needed(
    difference: float, sd: float, alpha: float = ALPHA, power: float = POWER, tasks: int = 1, effect: float = 1.0
) -> int:
    """Computes how many paired documents show a difference.

    Args:
        difference: The true difference, as a fraction; its sign does not matter.
        sd: Standard deviation of a document's change.
        alpha: Two-sided level.
        power: Chance to show it.
        tasks: Tasks in the comparison, all of which Holm's rule may have to pay for.
        effect: The design effect of the clusters.

    Returns:
        The number of documents.

    Raises:
        InputError: The difference is 0, the changes have no spread, or another argument is out of its range.
    """
    _check_difference(difference)
    if difference == 0:
        raise InputError("A difference of 0 is shown by no finite number of samples; give one above 0.")
    if not sd > 0:
        raise InputError(f"The standard deviation of a change is {sd:g}; without a spread nothing can be computed.")
    return max(2, math.ceil(effect * (_sum_of_quantiles(alpha, power, tasks) * sd / difference) ** 2))


def detectable_difference(
    n: int, sd: float, alpha: float = ALPHA, power: float = POWER, tasks: int = 1, effect: float = 1.0
) -> float:
    """Computes the smallest difference that so many paired documents show.

    Args:
        n: Number of documents.
        sd: Standard deviation of a document's change.
        alpha: Two-sided level.
        power: Chance to show it.
        tasks: Tasks in the comparison.
        effect: The design effect of the clusters.

    Returns:
        The difference, as a fraction.

    Raises:
        InputError: An argument is out of its range.
    """
    if n < 2:
        raise InputError(f"{n} documents were given; at least 2 are needed.")
    return _sum_of_quantiles(alpha, power, tasks) * sd * math.sqrt(effect / n)


def samples_to_decide(pair: PairedDifference, tolerance: float, alpha: float = ALPHA, tasks: int = 1) -> int | None:
    """Computes how many documents would turn an unclear verdict into a clear one, the difference staying as it is.

    Clear is either significant and beyond the tolerance, or a 90 % interval inside it, both ends; with a chance of
    `POWER`.

    Args:
        pair: The observed difference.
        tolerance: The difference that is tolerated, as a fraction.
        alpha: Level of the verdict.
        tasks: Tasks in the comparison, all of which Holm's rule may have to pay for.

    Returns:
        The number of documents, or None where no number decides (a difference of exactly the tolerance).

    Raises:
        InputError: `alpha` or `tasks` is out of its range.
    """
    distance = abs(pair.difference)
    if distance == tolerance or not pair.stderr > 0:
        return None
    if distance > tolerance:
        significant = _sum_of_quantiles(alpha, POWER, tasks) * pair.stderr / distance
        beyond = float(norm.ppf(POWER)) * pair.stderr / (distance - tolerance)
        longer = max(significant, beyond)
    else:
        longer = _until_same(pair, tolerance)
    return max(pair.n + 1, math.ceil(pair.n * longer**2))


def _until_same(pair: PairedDifference, tolerance: float) -> float:
    """By what factor errors have to shrink until both ends lie inside the tolerance with a chance of `POWER`."""
    reached = (pair.t_at(-tolerance), -pair.t_at(tolerance))

    def lacking(factor: float) -> float:
        # The chances add up: an interval short enough for such a chance is never outside at both ends.
        outside = sum(norm.sf(factor * t - norm.ppf(0.95)) for t in reached)
        return float(1 - outside - POWER)

    return float(bisect(lacking, 0, 10 / min(reached)))
