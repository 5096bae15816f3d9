"""Bounds against Tango's definition, Wilson's interval, exact coverage, and the t interval that they replace."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from lmms_ca_plugin.results.statistics import paired_difference

TABLES = [(5, 0, 40), (0, 5, 40), (3, 2, 40), (10, 4, 60), (1, 0, 500), (12, 30, 90), (20, 20, 40)]


def table(won, lost, n):
    """Right or wrong answers, each on a picture of its own."""
    before = [0] * won + [1] * lost + [1] * (n - won - lost)
    after = [1] * won + [0] * lost + [1] * (n - won - lost)
    return paired_difference(before, after, range(n))


# ---- what it is ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("won", "lost", "n"), TABLES)
@pytest.mark.parametrize("margin", [-0.3, -0.02, 0.01, 0.2])
def test_it_is_the_score_statistic_under_the_most_likely_table(won, lost, n, margin):
    def unlikely(q):
        shares = np.clip([q + margin, q, 1 - 2 * q - margin], 1e-300, 1)
        return -float(np.dot([won, lost, n - won - lost], np.log(shares)))

    bounds = (max(0.0, -margin), (1 - margin) / 2)
    q = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    expected = (won - lost - n * margin) / math.sqrt(n * (2 * q + margin - margin**2))
    found = table(won, lost, n)
    # our table has the sample's variance, with n - 1: a change more or less in n
    assert found.t_at(margin) == pytest.approx(expected, rel=1.5 / n + 1e-3)


@pytest.mark.parametrize("lost", [0, 1, 5, 30])
def test_where_changes_go_one_way_its_far_end_is_wilsons(lost):
    n = 400
    found = table(0, lost, n)
    wilson = stats.binomtest(lost, n).proportion_ci(0.95, "wilson").high
    as_normal = float(stats.t.sf(stats.norm.ppf(0.975), n - 1))
    assert found.lower_bound(as_normal) == pytest.approx(-wilson, rel=2e-3)


def test_where_much_changed_it_is_the_t_interval_and_its_p_value_the_t_tests():
    generator = np.random.default_rng(2)
    before, after = generator.random(20_000), generator.random(20_000)
    found = paired_difference(before, after, range(20_000))
    reference = stats.ttest_rel(after, before)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=2e-3)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)


@pytest.mark.parametrize("distance", [-1.0, 0.0, 0.5, 2.0])
def test_where_much_changed_its_p_values_are_the_t_tests(distance):
    generator = np.random.default_rng(3)
    before, after = generator.random(4000), generator.random(4000)
    found = paired_difference(before, after, range(4000))
    margin = found.difference - distance * found.stderr
    reference = stats.ttest_1samp(after - before, margin, alternative="greater")
    assert found.p_above(margin) == pytest.approx(reference.pvalue, rel=0.03)


def test_clusters_that_change_together_count_once():
    alone = table(3, 9, 100)
    twice = paired_difference(
        np.repeat([0] * 3 + [1] * 97, 2),
        np.repeat([1] * 3 + [0] * 9 + [1] * 88, 2),
        np.repeat(range(100), 2).tolist(),
    )
    assert twice.answers == alone.answers == 100
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high), rel=0.03)


@pytest.mark.parametrize("size", [0.3, 0.5])
def test_smaller_changes_move_the_mean_by_as_much_less(size):
    whole, part = table(0, 4, 200), paired_difference([1] * 200, [1 - size] * 4 + [1] * 196, range(200))
    assert part.answers == pytest.approx(whole.answers / size)
    assert part.low / whole.low == pytest.approx(size, rel=0.02)


# ---- what it is for --------------------------------------------------------------------------------------------------
N = 500


def misses(low_of, shares):
    """Exact chance that a lower bound from 500 documents, of which a share is lost, lies above the truth."""
    lows = np.array([low_of(table(0, lost, N)) for lost in range(81)])
    return np.array([stats.binom.pmf(np.flatnonzero(lows > -share), N, share).sum() for share in shares])


def test_it_covers_where_few_documents_changed():
    shares = np.linspace(0.0005, 0.06, 240)

    def plain(found):
        return found.difference - stats.t.isf(0.025, N - 1) * found.stderr if found.stderr else 0.025 ** (1 / N) - 1

    assert 0.015 < misses(lambda found: found.low, shares).max() < 0.035  # 0.025 is asked for
    assert misses(plain, shares).max() > 0.15


def test_more_changes_leave_more_open():
    ends = [table(0, lost, N).low for lost in range(30)]
    assert all(later < earlier for earlier, later in pairwise(ends))
    assert ends[0] == pytest.approx(0.025 ** (1 / N) - 1, rel=0.07)  # the exact bound of no event


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 200),
    st.floats(0.001, 0.95),
    st.integers(-900, 900).map(lambda thousandths: thousandths / 1000),
)
def test_bounds_and_p_values_say_the_same(won, lost, rest, alpha, margin):
    found = table(won, lost, max(2, won + lost + rest))
    bound, p_value = found.lower_bound(alpha), found.p_above(margin)
    assert -1 <= bound <= (found.difference if alpha < 0.5 else 1)
    if abs(p_value - alpha) > 1e-6:
        assert (p_value < alpha) == (bound > margin)
    low, high = found.interval(0.95)
    assert -1 <= low <= found.difference <= high <= 1
    # The t test has the variance that was seen, Tango's that of no difference: of few answers they differ.
    if found.n >= 100 and abs(found.p_value - 0.05) > 0.02:
        assert (low <= 0 <= high) == (found.p_value > 0.05)


@given(
    st.lists(st.tuples(st.sampled_from([0, 0.3, 1]), st.sampled_from([0, 0.3, 1])), min_size=4, max_size=30),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.01, 0.05, 0.3]),
)
def test_fractional_bounds_and_p_values_say_the_same(rows, margin, alpha):
    found = paired_difference(*zip(*rows, strict=True), range(len(rows)))
    p_value, low = found.p_above(margin), found.lower_bound(alpha)
    if abs(p_value - alpha) > 1e-9:
        assert (p_value < alpha) == (low > margin)
    assert -1 <= low <= found.difference + 1e-12


def test_what_is_left_of_a_sum_by_rounding_is_no_change():
    # on the second picture one document lost three tenths and two others won them, up to 5e-17
    found = paired_difference([1, 0.6, 0.0, 0.0], [0, 0.3, 0.1, 0.2], ["a", "b", "b", "b"])
    assert (0.3 - 0.6) + 0.1 + 0.2 != 0
    assert found.answers == pytest.approx(4)


def test_a_single_picture_bounds_nothing():
    found = paired_difference([1, 0], [0, 0], ["a", "a"])
    assert all(map(math.isnan, (found.low, found.high, found.lower_bound(0.05), found.p_value, found.p_above(0.1))))
