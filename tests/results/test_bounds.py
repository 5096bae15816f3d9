"""Bounds of few changes: against exact coverage, against the t bound, and against what they say they are."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmms_ca_plugin.results.bounds import MeanChange
from lmms_ca_plugin.results.statistics import paired_difference

N = 500


def lost(documents, n=N):
    return paired_difference([1] * n, [0] * documents + [1] * (n - documents), range(n), resamples=0)


def test_it_is_the_t_bound_of_so_many_more_pictures():
    # alpha for which t = 2: four pictures more of those that changed, each of which lost both its documents
    changes = np.array([-1.0] * 6 + [0.0] * 94)
    found = paired_difference([1] * 100, 1 + changes, np.arange(100) // 2, resamples=0)
    expected = found.difference - 2 * math.sqrt(found.stderr**2 + 4 * (2 / 100) ** 2)
    assert found.lower_bound(float(stats.t.sf(2, 49))) == pytest.approx(expected, rel=1e-12)


def test_the_next_change_may_be_a_whole_document():
    small = paired_difference([1.0] * 50, [0.7] * 4 + [1.0] * 46, range(50), resamples=0)
    none = paired_difference([1.0] * 50, [1.0] * 50, np.arange(50) // 2, resamples=0)
    cancelled = paired_difference([1.0, 0.0] * 25, [0.0, 1.0] + [1.0, 0.0] * 24, np.arange(50) // 2, resamples=0)
    assert (small.step, none.step, cancelled.step) == (1 / 50, 1 / 25, 1 / 50)


def test_equal_changes_stretch_it_by_how_many_there_are():
    found = lost(8, n=4000)
    plain = stats.t.isf(0.025, 3999) * found.stderr
    stretched = math.sqrt(1 + stats.t.isf(0.025, 3999) ** 2 / 8)
    assert found.difference - found.low == pytest.approx(plain * stretched, rel=1e-3)


def misses(bound, shares):
    """Exact chance that an upper bound on a share of documents lost, from 500 of them, lies below the true share."""
    uppers = np.array([bound(lost(k)) for k in range(N + 1)])
    return np.array([stats.binom.pmf(np.flatnonzero(uppers < share), N, share).sum() for share in shares])


def test_it_covers_where_few_documents_changed():
    shares = np.linspace(0.0005, 0.06, 240)

    def plain(found):
        half = stats.t.isf(0.025, N - 1) * found.stderr
        return half - found.difference if found.stderr else 1 - 0.025 ** (1 / N)  # exact where nothing changed

    ours = misses(lambda found: -found.low, shares)
    assert 0.025 < ours.max() < 0.041  # 0.025 is asked for
    assert misses(plain, shares).max() > 0.15


def test_one_change_leaves_more_open_than_none():
    ends = [lost(documents).low for documents in range(0, 30)]
    assert all(later < earlier for earlier, later in pairwise(ends))
    assert ends[0] == pytest.approx(0.025 ** (1 / N) - 1, rel=0.07)  # the exact bound of no event
    assert [lost(documents).high > 0 for documents in (1, 6, 7, 30)] == [True, True, False, False]


def test_where_much_changed_it_is_the_t_bound():
    generator = np.random.default_rng(2)
    before, after = generator.random(20_000), generator.random(20_000)
    found = paired_difference(before, after, range(20_000), resamples=0)
    reference = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(reference), rel=5e-3)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(1e-4, 0.5), st.integers(2, 3000), st.floats(1e-4, 0.4))
def test_bound_and_t_are_each_others_inverse(difference, stderr, step, n_clusters, alpha):
    change = MeanChange(difference, stderr, step, n_clusters)
    bound, t = change.lower_bound(alpha), float(stats.t.isf(alpha, n_clusters - 1))
    assert -1 <= bound <= difference
    if -1 < bound < difference - 1e-6:
        assert change.t_at(bound) == pytest.approx(t, rel=1e-6)
        assert change.t_at(2 * difference - bound) == pytest.approx(-t, rel=1e-6)
    assert change.t_at(difference) == 0


def test_a_single_picture_bounds_nothing():
    found = paired_difference([1, 0], [0, 0], ["a", "a"], resamples=0)
    assert all(map(math.isnan, (found.low, found.high, found.lower_bound(0.05))))
