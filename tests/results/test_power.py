"""Sample sizes against simulation and against the textbook's numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.bounds import MeanChange
from lmms_ca_plugin.results.power import (
    change_sd,
    design_effect,
    detectable_difference,
    samples_needed,
    samples_to_decide,
)
from lmms_ca_plugin.results.regression import Rules, judge
from lmms_ca_plugin.results.statistics import McNemar, PairedDifference, paired_difference


def test_a_textbook_number():
    # d = 0.5 sd, alpha 0.05 two-sided, power 0.8: (1.960 + 0.842)^2 / 0.25 = 31.4
    assert samples_needed(0.5, 1.0) == 32


def test_so_many_samples_give_so_much_power():
    difference, flips = 0.03, 0.15
    n = samples_needed(difference, change_sd(flips, difference), power=0.9)
    generator = np.random.default_rng(0)
    chances = [(flips - difference) / 2, 1 - flips, (flips + difference) / 2]
    found = sum(stats.ttest_1samp(generator.choice([-1, 0, 1], n, p=chances), 0).pvalue < 0.05 for _ in range(1000))
    assert found / 1000 == pytest.approx(0.9, abs=0.03)


def test_both_directions_agree():
    sd = change_sd(0.2)
    n = samples_needed(0.01, sd, tasks=6, effect=1.6)
    assert detectable_difference(n, sd, tasks=6, effect=1.6) == pytest.approx(0.01, rel=1e-3)


def test_clusters_and_tasks_cost_samples():
    plain = samples_needed(0.02, 0.4)
    assert samples_needed(0.02, 0.4, effect=design_effect(4, 0.2)) == pytest.approx(1.6 * plain, rel=1e-3)
    assert samples_needed(0.02, 0.4, tasks=6) > plain
    assert samples_needed(-0.02, 0.4) == plain


def observed(lost, won, n):
    return paired_difference([1] * lost + [0] * (n - lost), [0] * lost + [1] * won + [0] * (n - lost - won), range(n))


def test_an_unclear_loss_needs_enough_to_be_significant():
    pair = observed(60, 40, 1000)
    assert samples_to_decide(pair, tolerance=0.01) == samples_needed(0.02, pair.stderr * np.sqrt(1000))


def test_an_unclear_loss_needs_enough_to_lie_beyond_the_tolerance():
    pair = observed(80, 69, 1000)  # significant sooner than that
    assert samples_to_decide(pair, tolerance=0.01) == math.ceil(1000 * (0.84162 * pair.stderr / 0.001) ** 2)


def test_an_unclear_sameness_needs_enough_for_both_ends_to_fit_the_tolerance():
    pair = observed(100, 100, 1000)
    plain = 1000 * ((1.6449 + 1.2816) * pair.stderr / 0.01) ** 2  # each end is outside in 10 %
    assert plain < samples_to_decide(pair, tolerance=0.01) < 1.05 * plain


def test_so_many_more_of_the_same_are_the_same():
    # the observed mix, as often as is asked for: the interval fits, and hardly sooner; the other end is far away
    pair = observed(8, 2, 1000)
    n = samples_to_decide(pair, tolerance=0.01)
    needed = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)
    more = MeanChange(pair.difference, pair.stderr * np.sqrt(1000 / n), pair.answers * n / 1000, n)
    assert more.lower_bound(float(stats.norm.sf(needed))) == pytest.approx(-0.01, rel=0.02)


def drawn(generator, n, lost, won):
    """Draws what `paired_difference` says of `n` pairs of answers, without drawing each answer."""
    worsened, improved, _ = generator.multinomial(n, [lost / 1000, won / 1000, 1 - (lost + won) / 1000])
    mean = (improved - worsened) / n
    stderr = math.sqrt(((improved + worsened) / n - mean**2) / (n - 1))
    return PairedDifference(mean, stderr, n, n, McNemar(improved, worsened, 1.0), n, improved, worsened)


def test_what_is_drawn_is_what_is_observed():
    pair = drawn(np.random.default_rng(0), 1000, 80, 69)
    seen = observed(pair.worsened, pair.improved, 1000)
    assert (pair.difference, pair.stderr, pair.answers) == pytest.approx((seen.difference, seen.stderr, seen.answers))


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [(75, 75, "same"), (77, 73, "same"), (80, 69, "regressed"), (82, 68, "regressed"), (85, 65, "regressed")],
)
def test_so_many_documents_decide_four_times_in_five(lost, won, verdict):
    n, generator = samples_to_decide(observed(lost, won, 1000), tolerance=0.01), np.random.default_rng(0)
    pairs = [drawn(generator, n, lost, won) for _ in range(600)]
    decided = sum(judge(pair, pair.p_value, Rules(tolerance=0.01)) == verdict for pair in pairs)
    assert decided / 600 == pytest.approx(0.8, abs=0.05)


def test_at_the_tolerance_no_number_decides():
    assert samples_to_decide(observed(2, 1, 100), tolerance=0.01) is None
    assert samples_to_decide(observed(1, 1, 100), tolerance=0.0) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samples_needed(0, 0.4), "no finite number"),
        (lambda: samples_needed(math.nan, 0.4), "difference is nan points"),
        (lambda: samples_needed(0.1, 0.0), "without a spread"),
        (lambda: samples_needed(0.1, 0.4, alpha=0), "alpha is 0"),
        (lambda: samples_needed(0.1, 0.4, power=1), "power is 1"),
        (lambda: samples_needed(0.1, 0.4, tasks=0), "0 tasks"),
        (lambda: change_sd(0), "share of flipped answers is 0"),
        (lambda: change_sd(0.05, 0.1), "10 points cannot come from 5 %"),
        (lambda: change_sd(0.05, math.nan), "difference is nan points"),
        (lambda: design_effect(0.5, 0.1), "cluster_size=0.5"),
        (lambda: design_effect(math.nan, 0.1), "cluster_size=nan"),
        (lambda: detectable_difference(1, 0.4), "1 documents"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
