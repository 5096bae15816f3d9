"""Statistics against scipy, against brute force, and against stored results of real systems."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.statistics import (
    bootstrap_interval,
    clustered_stderr,
    mcnemar_exact,
    mean_interval,
    paired_difference,
)

PAIRED = Path(__file__).parents[2].parent / "shared" / "conformance" / "paired"
real = pytest.mark.skipif(not PAIRED.is_dir(), reason="../shared/conformance is not beside this checkout")
RNG = np.random.default_rng(7)
BEFORE = RNG.choice([0, 0.3, 0.6, 0.9, 1], 400)
AFTER = np.where(RNG.random(400) < 0.2, RNG.choice([0, 0.3, 0.6, 0.9, 1], 400), BEFORE)
ALONE = range(400)
FOURS = [i // 4 for i in range(400)]


def expected_pairs():
    if not PAIRED.is_dir():
        return []
    stored = json.loads((PAIRED / "expected.json").read_text())
    return [(name, pair) for name, found in stored.items() for pair in found["pairs"]]


@real
@pytest.mark.parametrize("name", ["docvqa_9models", "okvqa_3models", "vizwiz_6models"])
def test_real_systems_alone(name):
    stored = json.loads((PAIRED / "expected.json").read_text())[name]
    table = pd.read_csv(PAIRED / f"{name}.csv")
    for model, expected in stored["models"].items():
        found = mean_interval(table[model], table["cluster"])
        assert found.mean == pytest.approx(expected["mean"], abs=1e-12)
        assert found.stderr == pytest.approx(expected["se_clustered"], abs=1e-12)
        assert clustered_stderr(table[model], range(len(table))) == pytest.approx(expected["se_clt"], abs=1e-12)
        assert (found.n, found.n_clusters) == (stored["n"], stored["n_clusters"])


@real
@pytest.mark.parametrize(("name", "pair"), expected_pairs())
def test_real_systems_in_pairs(name, pair):
    expected = json.loads((PAIRED / "expected.json").read_text())[name]["pairs"][pair]
    table = pd.read_csv(PAIRED / f"{name}.csv")
    before, after = (table[model].to_numpy() for model in pair.split("|"))
    found = paired_difference(before, after, table["cluster"])
    assert found.difference == pytest.approx(expected["mean_diff_b_minus_a"], abs=1e-12)
    assert found.stderr == pytest.approx(expected["se_paired_clustered"], abs=1e-12)
    alone = paired_difference(before, after, range(len(table)))
    assert alone.stderr == pytest.approx(expected["se_paired"], abs=1e-12)
    assert alone.p_value == pytest.approx(expected["ttest_rel_p"], rel=1e-9)
    assert (found.mcnemar.fixed, found.mcnemar.broken) == (
        expected["mcnemar_n01_fixed"],
        expected["mcnemar_n10_broken"],
    )
    assert found.mcnemar.p_value == pytest.approx(expected["mcnemar_exact_p"], rel=1e-9)
    assert (found.improved, found.worsened) == (expected["improved"], expected["worsened"])
    if interval := expected.get("bootstrap10k_pcg64seed0_ci95"):
        assert bootstrap_interval(after - before, range(len(table))) == pytest.approx(interval, abs=1e-9)


def test_p_value_is_scipys_where_nothing_clusters_and_intervals_are_nearly():
    found = paired_difference(BEFORE, AFTER, ALONE)
    reference = stats.ttest_rel(AFTER, BEFORE)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-12)
    for level in (0.95, 0.90):
        plain = reference.confidence_interval(level)
        assert found.interval(level) == pytest.approx((plain.low, plain.high), abs=0.03 * (plain.high - plain.low))
    assert found.interval(0.95) == pytest.approx((found.low, found.high), abs=1e-9)


def test_bootstrap_agrees_with_scipys_and_is_seeded():
    change = AFTER - BEFORE
    reference = stats.bootstrap((change,), np.mean, n_resamples=10_000, method="percentile", rng=3).confidence_interval
    assert bootstrap_interval(change, ALONE) == pytest.approx((reference.low, reference.high), abs=1e-3)
    assert bootstrap_interval(change, FOURS) == bootstrap_interval(change, FOURS)
    assert bootstrap_interval(change, FOURS) != bootstrap_interval(change, FOURS, seed=1)


def test_bootstrap_draws_clusters():
    # four equal documents per cluster carry no more than one does
    values = np.repeat(RNG.normal(size=60), 4)
    quadruple = bootstrap_interval(values, np.repeat(range(60), 4).tolist())
    assert quadruple == pytest.approx(bootstrap_interval(values[::4], range(60)), abs=1e-12)


def test_bootstrap_in_small_portions_is_the_same(monkeypatch):
    whole = bootstrap_interval(AFTER, FOURS, resamples=50)
    monkeypatch.setattr("lmms_ca_plugin.results.statistics._DRAWS_AT_ONCE", 700)
    assert bootstrap_interval(AFTER, FOURS, resamples=50) == whole


def test_clustered_error_by_brute_force():
    values, clusters = BEFORE[:40], [i % 7 for i in range(40)]
    residuals = values - values.mean()
    crossed = sum(
        residuals[i] * residuals[j] for i in range(40) for j in range(40) if i != j and clusters[i] == clusters[j]
    )
    assert clustered_stderr(values, clusters) ** 2 == pytest.approx(values.var(ddof=1) / 40 + crossed / 1600)


def test_equal_documents_in_a_cluster_count_once():
    values = np.repeat(BEFORE[:50], 4)
    single = clustered_stderr(BEFORE[:50], range(50))
    assert clustered_stderr(values, np.repeat(range(50), 4).tolist()) == pytest.approx(single, rel=0.02)
    assert clustered_stderr(values, range(200)) == pytest.approx(single / 2, rel=0.02)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=2, max_size=40))
def test_clustered_error_is_never_negative_or_nan(rows):
    scores, clusters = zip(*rows, strict=True)
    assert clustered_stderr(scores, clusters) >= 0


@pytest.mark.parametrize(("right", "n"), [(0, 30), (29, 30), (30, 30), (1, 500), (200, 500)])
def test_a_mean_of_right_and_wrong_has_wilsons_interval(right, n):
    level = 1 - 2 * stats.t.sf(stats.norm.ppf(0.975), n - 1)  # at which t is the normal quantile of 95 %
    found = mean_interval([1] * right + [0] * (n - right), range(n), level)
    wilson = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=0.3 / n)  # n - 1 in the variance
    assert 0 <= found.low <= found.mean <= found.high <= 1


@pytest.mark.parametrize("score", [0.0, 0.1, 0.3, 1.0])
def test_where_all_score_the_same_as_many_pictures_tell_how_sure_that_is(score):
    few, many = (mean_interval([score] * n, range(n)) for n in (10, 1000))
    assert few.stderr == many.stderr == 0
    assert few.low <= many.low <= score + 1e-12 and score - 1e-12 <= many.high <= few.high + 1e-12
    assert few.high - few.low > 0.3 > 0.01 > many.high - many.low > 0


@pytest.mark.parametrize("score", [0.0, 0.1, 1 / 3, 0.7, 1.0])
def test_rounding_takes_no_interval_off_its_mean(score):
    found = [mean_interval([score] * n, range(n)) for n in range(2, 200)]
    assert all(0 <= each.low <= each.mean <= each.high <= 1 for each in found)


def test_an_interval_covers_where_few_answers_are_wrong():
    n, shares = 500, np.linspace(0.0005, 0.06, 240)
    found = [mean_interval([0] * wrong + [1] * (n - wrong), range(n)) for wrong in range(81)]

    def misses(lows):
        return max(stats.binom.pmf(np.flatnonzero(lows > 1 - share), n, share).sum() for share in shares)

    assert misses(np.array([i.low for i in found])) < 0.035  # 0.025 is asked for
    assert misses(np.array([i.mean - stats.t.isf(0.025, n - 1) * i.stderr for i in found])) > 0.15


def test_where_scores_vary_much_the_interval_is_the_t_interval():
    found = mean_interval(BEFORE, FOURS)
    half = stats.t.isf(0.025, 99) * found.stderr
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.05 * half)


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 70)])
def test_mcnemar_is_the_binomial_test(fixed, broken):
    before = [0.3] * fixed + [0.6] * broken + [1] * 5 + [0] * 5
    after = [0.5] * fixed + [0.49] * broken + [0.6] * 5 + [0.3] * 5
    found = mcnemar_exact(before, after)
    tail = stats.binom.cdf(min(fixed, broken), fixed + broken, 0.5)
    assert (found.fixed, found.broken) == (fixed, broken)
    assert found.p_value == pytest.approx(min(1, 2 * tail))


def test_no_change_is_no_difference():
    found = paired_difference(BEFORE, BEFORE, FOURS)
    assert (found.difference, found.p_value, found.improved, found.worsened) == (0, 1, 0, 0)
    assert bootstrap_interval(BEFORE - BEFORE, FOURS) == (0, 0)
    assert found.high == -found.low == pytest.approx(1 / (1 + 100 / stats.t.isf(0.025, 99) ** 2))


def test_a_uniform_change_has_a_p_value():
    found = paired_difference([1.0] * 5, [0.0] * 5, range(5))
    assert found.stderr == 0
    assert found.p_value == pytest.approx(2 * stats.t.sf(np.sqrt(5), 4))  # McNemar's statistic of 5 changed answers


def test_swapping_the_sides_turns_the_sign_only():
    there, back = paired_difference(BEFORE, AFTER, FOURS), paired_difference(AFTER, BEFORE, FOURS)
    assert there.difference == -back.difference
    assert there.p_value == pytest.approx(back.p_value, rel=1e-12)
    assert (there.improved, there.mcnemar.fixed) == (back.worsened, back.mcnemar.broken)


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.05], [0.05]),
        ([0.5, 0.6], [1, 1]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0, 1], [0, 1]),
    ],
)
def test_holm(given_p, expected):
    found = holm({f"task{i}": p for i, p in enumerate(given_p)})
    assert list(found) == [f"task{i}" for i in range(len(given_p))]
    assert list(found.values()) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_plain_and_bonferroni(p_values):
    for i, adjusted in enumerate(holm({str(i): p for i, p in enumerate(p_values)}).values()):
        assert p_values[i] <= adjusted <= min(1, len(p_values) * p_values[i])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_with_their_place(bad):
    with pytest.raises(InputError, match="candidate score at position 1 is"):
        paired_difference([0, 1], [0, bad], range(2))


def test_unpaired_and_empty_input_is_refused():
    with pytest.raises(InputError, match="2 baseline scores but 3 candidate scores"):
        paired_difference([0, 1], [0, 1, 1], range(2))
    with pytest.raises(InputError, match="non-empty"):
        mean_interval([], [])
    with pytest.raises(InputError, match="2 scores but 3 clusters"):
        clustered_stderr([0, 1], range(3))
    with pytest.raises(InputError, match="p-value of gqa is 1.5"):
        holm({"gqa": 1.5})
