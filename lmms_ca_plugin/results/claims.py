"""Claims that paired differences lie above a margin, many at once.

Sources: Holm 1979 for many claims at once; Berger 1982, "Multiparameter Hypothesis Testing and Acceptance Sampling"
(Technometrics 24), for a claim that several differences all lie above a margin: it holds at alpha if each does.
Rule: bounds and p-values are those of `bounds.MeanChange`. A bound at 95 % is one-sided: all of alpha = 0.05 lies below
it.
Differences are fractions from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.statistics import PairedDifference


@dataclass(frozen=True)
class Claim:
    """Whether all differences of one claim lie above the margin.

    Attributes:
        difference: The smallest of them.
        low: Its lower bound at the level at which Holm's rule tests this claim, and no more than the margin where an
            earlier step of the rule has failed: the claim holds exactly if `low` lies above the margin. It is no
            simultaneous interval.
        p_holm: One-sided p-value against the margin, adjusted over all claims.
        holds: Whether `p_holm` is below alpha.
    """

    difference: float
    low: float
    p_holm: float
    holds: bool


def claims_above(claims: Mapping[int, Sequence[PairedDifference]], margin: float, alpha: float) -> dict[int, Claim]:
    """Finds the claims all of whose differences lie above a margin, with a chance below alpha that any is false.

    Args:
        claims: The differences of each claim, by its number.
        margin: What they are to lie above.
        alpha: Level of the whole, shared out by Holm's rule.

    Returns:
        What became of each claim, in the order given; nothing for no claim.

    Raises:
        InputError: A difference comes from fewer than 2 clusters.
    """
    for number, pairs in claims.items():
        if any(pair.n_clusters < 2 for pair in pairs):
            raise InputError(f"Claim {number} rests on fewer than 2 clusters: there is no standard error.")
    p_values = {number: max(pair.p_above(margin) for pair in pairs) for number, pairs in claims.items()}
    adjusted = holm(p_values)
    found: dict[int, Claim] = {}
    for rank, number in enumerate(sorted(p_values, key=p_values.__getitem__)):
        level = alpha / (len(claims) - rank)
        low = min(pair.lower_bound(level) for pair in claims[number])
        holds = adjusted[number] < alpha
        found[number] = Claim(
            difference=min(pair.difference for pair in claims[number]),
            low=low if holds else min(low, margin),
            p_holm=adjusted[number],
            holds=holds,
        )
    return {number: found[number] for number in claims}
