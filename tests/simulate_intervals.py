"""How often a 95 % interval of a difference misses the truth: ours, and the plain clustered t interval.

Run it as a script for the full table; its argument is the number of pairs of runs per line.
Model: that of `simulate_checkpoints.py`. A loss as large as the share of answers that flip means that all of them go
one way, as where a method touches few answers and spoils them.
"""

import sys
from dataclasses import astuple, dataclass

import numpy as np
from scipy import stats
from simulate_checkpoints import changes

from lmms_ca_plugin.results.statistics import paired_difference


@dataclass(frozen=True)
class Misses:
    """Shares of intervals that end short of the true change, on its two sides, and how wide ours are beside t's."""

    ours_too_high: float
    ours_too_low: float
    t_too_high: float
    t_too_low: float
    width: float


def misses(pairs, n, size, flips, loss, seed=0):
    """Draws pairs of runs whose true change is `-loss`."""
    generator, clusters = np.random.default_rng(seed), [i // size for i in range(n)]
    ours, plain = np.empty((pairs, 2)), np.empty((pairs, 2))
    for number in range(pairs):
        change = changes(generator, n, size, flips, loss)
        found = paired_difference(change < 0, change > 0, clusters)
        half = stats.t.isf(0.025, found.n_clusters - 1) * found.stderr
        ours[number] = found.low, found.high
        plain[number] = found.difference - half, found.difference + half
    sides = [np.mean(side) for of in (ours, plain) for side in (of[:, 0] > -loss, of[:, 1] < -loss)]
    return Misses(*sides, float(np.median(np.diff(ours)) / max(np.median(np.diff(plain)), 1e-12)))


CASES = [
    *((n, 1, flips, flips) for n in (500, 2000) for flips in (3 / n, 5 / n, 10 / n, 30 / n)),
    *((n, 1, flips, 0.0) for n in (500, 2000) for flips in (5 / n, 10 / n, 30 / n)),
    *((500, 1, flips, loss) for flips, loss in ((0.05, 0.03), (0.15, 0.0), (0.15, 0.03))),
    *((2000, 4, flips, flips) for flips in (5 / 2000, 10 / 2000, 30 / 2000)),
    *((2000, 4, 0.15, loss) for loss in (0.0, 0.03)),
    *((2000, 20, flips, loss) for flips, loss in ((30 / 2000, 30 / 2000), (0.15, 0.0))),
    *((50, 1, flips, loss) for flips, loss in ((0.06, 0.06), (0.2, 0.0))),
]


def main(pairs):
    sys.stdout.write(
        "| n | per picture | flips | true loss | ours lies above | below | t lies above | below | width, in t's |\n"
        f"{'| ---: ' * 9}|\n"
    )
    for n, size, flips, loss in CASES:
        *shares, width = astuple(misses(pairs, n, size, flips, loss))
        wide = f"{width:.2f}" if width < 1000 else ""  # t's has no width where nothing changed in most pairs
        told = " | ".join(f"{100 * share:.1f} %" for share in shares)
        sys.stdout.write(f"| {n} | {size} | {100 * flips:.2f} % | {100 * loss:.2f} | {told} | {wide} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
