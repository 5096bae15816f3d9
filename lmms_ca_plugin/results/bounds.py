"""The mean change between two runs of the same documents: bounds that hold where only few documents changed.

Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design" (Statistics in Medicine 17), the score interval: the variance is the one that the hypothesised difference
implies, not the one that was seen, which is too small as often as too few changes were seen.
Rule: that interval is one of answers that are right or wrong, each on a picture of its own. So it is computed from the
table of such answers that says the same as the documents do: their mean change, its clustered standard error, and a
change of one answer that moves the mean as far as a cluster that changed did (root mean square). Where nothing changed,
an answer is a cluster.
Deviates from the source in this table and in Student's t, with a degree of freedom less than there are clusters, in
place of the normal distribution. Where much changed, it is the clustered t interval, nearly; at 0, its test is the
clustered t test, nearly, of a hundred answers and more. `tests/simulate_intervals.py` measures how often each misses.
Changes are fractions from -1 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from scipy.optimize import bisect


@dataclass(frozen=True)
class MeanChange:
    """A mean change and what its bounds rest on.

    Attributes:
        difference: Candidate minus baseline, averaged over documents.
        stderr: Its clustered standard error; NaN for a single cluster.
        answers: How many answers the table has that says the same: 1 over what one change moves the mean by.
        n_clusters: How many clusters were asked.
    """

    difference: float
    stderr: float
    answers: float
    n_clusters: int

    def t_at(self, margin: float) -> float:
        """Computes how far the mean change lies above a margin, in standard errors were the margin true.

        Args:
            margin: The hypothesised mean change, from -1 to 1.

        Returns:
            Tango's statistic, negative where the margin lies above the difference.
        """
        n, distance = self.answers, self.difference - margin
        if distance == 0:
            return 0.0
        changed = n * max(n * self.stderr**2 + self.difference**2, abs(self.difference))
        lost = (changed - n * self.difference) / 2
        # Of the table's answers a share q would be lost, and q + margin won: the most likely q, were the margin true.
        b = n * (2 - self.difference) * margin - changed
        q = (math.sqrt(max(0.0, b**2 + 8 * n * lost * margin * (1 - margin))) - b) / (4 * n)
        variance = (2 * q + margin * (1 - margin)) / n
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    def p_above(self, margin: float) -> float:
        """Tests the true mean change against a margin.

        Args:
            margin: What it is to lie above, from -1 to 1.

        Returns:
            The one-sided p-value: below alpha exactly if the lower bound at alpha lies above the margin; NaN for a
            single cluster.
        """
        return float(stats.t.sf(self.t_at(margin), self.n_clusters - 1))

    def lower_bound(self, alpha: float) -> float:
        """Computes a one-sided lower bound.

        Args:
            alpha: Chance that the true mean lies below the bound.

        Returns:
            The bound, from -1 to 1; NaN for a single cluster.
        """
        if self.n_clusters < 2:
            return math.nan
        t = float(stats.t.isf(alpha, self.n_clusters - 1))
        if self.t_at(-1) <= t:
            return -1.0
        if self.t_at(1) >= t:
            return 1.0
        return float(bisect(lambda margin: self.t_at(margin) - t, -1, 1, xtol=1e-12))

    def upper_bound(self, alpha: float) -> float:
        """Computes a one-sided upper bound: `lower_bound` with both runs exchanged.

        Args:
            alpha: Chance that the true mean lies above the bound.

        Returns:
            The bound, from -1 to 1; NaN for a single cluster.
        """
        return -MeanChange(-self.difference, self.stderr, self.answers, self.n_clusters).lower_bound(alpha)

    def interval(self, level: float) -> tuple[float, float]:
        """Computes both ends of an interval: one-sided bounds at half of 1 - `level` each.

        Args:
            level: The interval's coverage.

        Returns:
            Low and high, from -1 to 1; NaN for a single cluster.
        """
        alpha = (1 - level) / 2
        return self.lower_bound(alpha), self.upper_bound(alpha)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.lower_bound(0.025)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.upper_bound(0.025)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the clustered paired t test; of Tango's at 0 where every document changed alike."""
        t = self.difference / self.stderr if self.stderr > 0 else self.t_at(0)
        return float(2 * stats.t.sf(abs(t), self.n_clusters - 1))
