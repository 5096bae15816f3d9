"""How often the gate and the intervals are wrong, on fewer pairs of runs than the documented tables."""

import numpy as np
import pytest
from simulate_checkpoints import CORRELATION, changes, rates
from simulate_intervals import misses


@pytest.mark.parametrize(("tasks", "pairs"), [(1, 300), (6, 40)])
@pytest.mark.parametrize("size", [1, 4])
def test_equal_models_are_seldom_called_regressed(tasks, pairs, size):
    alarms = rates(pairs, size=size, losses=(0.0,) * tasks)["any regressed"]
    assert alarms <= 0.06
    assert tasks == 6 or alarms > 0  # a gate that never calls is no gate


def test_a_loss_of_three_points_is_found():
    assert rates(200, losses=(0.03,))["regressed"] >= 0.85


def test_ignoring_the_clusters_would_raise_false_alarms():
    # what the clustered error is for: the same runs judged as if every document stood alone
    generator = np.random.default_rng(5)
    drawn = np.array([changes(generator, 2000, 4, 0.15, 0.0) for _ in range(400)])  # (runs, documents)
    naive = drawn.std(axis=1, ddof=1) / np.sqrt(2000)
    assert np.std(drawn.mean(axis=1)) == pytest.approx(np.sqrt(1 + 3 * CORRELATION) * naive.mean(), rel=0.1)


@pytest.mark.parametrize("size", [1, 4])
def test_intervals_of_few_changes_hold_where_t_intervals_do_not(size):
    found = misses(500, n=500, size=size, flips=0.006, loss=0.006)
    assert found.t_too_high > 0.12
    assert found.ours_too_high + found.ours_too_low < 0.05


def test_intervals_of_many_changes_are_hardly_wider():
    found = misses(300, n=2000, size=1, flips=0.15, loss=0.0)
    assert 1 < found.width < 1.02
    assert 0.01 < found.ours_too_high + found.ours_too_low < 0.08
