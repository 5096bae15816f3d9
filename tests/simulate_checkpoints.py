"""How often the gate is wrong: pairs of simulated checkpoints, judged as `lmms-ca regress` judges them.

Run it as a script for the full table (2,000 pairs of runs per line, some minutes).
Model: a share of the answers flips between the two runs, so that the mean changes by `-loss` in expectation. On one
picture, each document's change is with probability sqrt(correlation) the picture's, else its own, which makes two
changes on one picture correlate by just that.
"""

import sys

import numpy as np

from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.regression import Rules, judge
from lmms_ca_plugin.results.statistics import paired_difference

CORRELATION = 0.2


def changes(generator, n, size, flips, loss):
    """Draws (documents,) changes of -1, 0 and 1."""
    chances = [(flips + loss) / 2, 1 - flips, (flips - loss) / 2]
    own = generator.choice([-1, 0, 1], n, p=chances)
    if size == 1:
        return own
    common = np.repeat(generator.choice([-1, 0, 1], -(-n // size), p=chances), size)[:n]
    return np.where(generator.random(n) < np.sqrt(CORRELATION), common, own)


def verdicts(generator, n, size, flips, losses, rules):
    """Judges one pair of runs: one verdict per task."""
    clusters = [i // size for i in range(n)]
    pairs = {}
    for task, loss in enumerate(losses):
        change = changes(generator, n, size, flips, loss)
        steady = generator.random(n) < 0.6
        before = np.where(change == 0, steady, change < 0).astype(float)
        pairs[str(task)] = paired_difference(before, before + change, clusters)
    adjusted = holm({task: pair.p_value for task, pair in pairs.items()})
    return [judge(pair, adjusted[task], rules) for task, pair in pairs.items()]


def rates(pairs, n=2000, size=1, flips=0.15, losses=(0.0,), tolerance=0.0, seed=0):
    """Shares of pairs of runs: any task regressed, and the first task regressed, same, unclear."""
    generator, rules = np.random.default_rng(seed), Rules(tolerance)
    found = [verdicts(generator, n, size, flips, losses, rules) for _ in range(pairs)]
    first = [verdict[0] for verdict in found]
    return {
        "any regressed": sum("regressed" in verdict for verdict in found) / pairs,
        **{name: first.count(name) / pairs for name in ("regressed", "same", "unclear")},
    }


def main(pairs):
    sys.stdout.write(
        "| n | flips | per picture | tasks | true loss | tolerance "
        "| any regressed | first: regressed | same | unclear |\n"
        f"{'| ---: ' * 10}|\n"
    )
    cases = [
        *(
            (2000, 0.15, size, (loss,) + (0.0,) * (tasks - 1), tolerance)
            for loss in (0.0, 0.03)
            for tolerance in (0.0, 0.01)
            for tasks in (1, 6)
            for size in (1, 4)
        ),
        (2000, 0.15, 1, (0.03,) * 6, 0.0),
        (2000, 0.15, 4, (0.03,) * 6, 0.0),
        (500, 0.15, 1, (0.0,), 0.0),
        (500, 0.15, 1, (0.03,), 0.0),
        (100, 0.05, 1, (0.0,), 0.0),
        (100, 0.05, 4, (0.0,), 0.0),
        (5000, 0.15, 4, (0.0,), 0.01),
        (5000, 0.15, 4, (0.02,), 0.01),
    ]
    for n, flips, size, losses, tolerance in cases:
        found = rates(pairs, n, size, flips, losses, tolerance)
        lost = f"{100 * losses[0]:g}" + (
            " in all" if losses[0] and set(losses) == {losses[0]} and len(losses) > 1 else ""
        )
        shares = " | ".join(f"{100 * share:.1f} %" for share in found.values())
        sys.stdout.write(f"| {n} | {flips:.0%} | {size} | {len(losses)} | {lost} | {100 * tolerance:g} | {shares} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
