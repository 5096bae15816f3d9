"""Adjusted claims against brute force, and against their bounds."""

from itertools import combinations

import numpy as np
import pytest

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.claims import claims_above
from lmms_ca_plugin.results.statistics import paired_difference


def pair(before, after, clusters=None):
    return paired_difference(before, after, range(len(before)) if clusters is None else clusters)


def loss(shares, n=200, seed=0):
    """Claims that differ by their shares of documents gained, the rest unchanged."""
    generator = np.random.default_rng(seed)
    return {i: [pair(np.zeros(n), (generator.random(n) < share).astype(float))] for i, share in enumerate(shares)}


def test_claims_are_those_of_the_closed_bonferroni_test():
    # brute force: a claim holds if every set of claims it belongs to has a p-value below alpha by the set's size
    seen = set()
    for seed in range(40):
        claims = loss(np.random.default_rng(seed).choice([0.02, 0.06, 0.08, 0.09, 0.1, 0.11, 0.3], 5), seed=seed)
        p_values = [claims[i][0].p_above(0.05) for i in range(5)]
        sets = [s for size in range(1, 6) for s in combinations(range(5), size)]
        passed = {s for s in sets if min(p_values[i] for i in s) < 0.05 / len(s)}
        expected = [all(s in passed for s in sets if i in s) for i in range(5)]
        found = claims_above(claims, 0.05, 0.05)
        assert [claim.holds for claim in found.values()] == expected
        assert [claim.low > 0.05 for claim in found.values()] == expected
        seen |= {sum(expected)}
    assert len(seen) > 3  # none, some and many


def test_a_claim_behind_a_failed_step_is_not_bounded_above_the_margin():
    # alone the last would hold (its step's level is alpha), but the one before it fails at alpha / 2
    claims = {gained: [pair([0] * 1600, [1] * gained + [0] * (1600 - gained))] for gained in (95, 640, 96)}
    found = claims_above(claims, 0.05, 0.05)
    assert {gained: claim.holds for gained, claim in found.items()} == {95: False, 640: True, 96: False}
    assert claims[95][0].p_above(0.05) < 0.05 < claims[95][0].lower_bound(0.05)
    assert found[95].low == 0.05 and found[96].low < 0.05


def test_a_claim_of_two_needs_both():
    # each alone is above the margin at alpha: no adjustment inside a claim
    (strong,), (weak,) = loss([0.3, 0.1], n=400, seed=4).values()
    (none,) = loss([0.04], n=400, seed=4)[0]
    both = claims_above({0: [strong, weak]}, 0.05, 0.05)[0]
    assert both.holds and both.difference == weak.difference
    assert both.p_holm == weak.p_above(0.05) and both.low == weak.lower_bound(0.05)
    assert not claims_above({0: [strong, none]}, 0.05, 0.05)[0].holds


def test_no_claims_and_too_few_clusters():
    assert claims_above({}, 0.05, 0.05) == {}
    with pytest.raises(InputError, match="Claim 7 rests on fewer than 2 clusters"):
        claims_above({7: [pair([0, 0], [1, 1], ["a", "a"])]}, 0.05, 0.05)
