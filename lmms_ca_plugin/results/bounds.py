"""The mean change between two runs of the same documents, with bounds that hold where only few documents changed.

Sources: the clustered t bound; and, for few changes, Agresti & Min 2005, "Simple improved confidence intervals for
comparing matched proportions" (Statistics in Medicine 24), and Bonett & Price 2012, "Adjusted Wald Confidence Interval
for a Difference of Binomial Proportions Based on Paired Data" (Journal of Educational and Behavioral Statistics 37),
who add answers that changed to those observed.
Rule: t^2 more clusters have changed, by as much as those that did change (root mean square of their shares in the
mean), one half for the better and one for the worse. Where k clusters changed, each alike, this makes the t bound's
distance greater by the factor sqrt(1 + t^2 / k). A step is at least one document's whole score, since the next change
may be one; where nothing changed at all, it is a whole cluster's, and t^2 / n is left, which is where the score
interval of Tango 1998 (Statistics in Medicine 17) ends, up to its denominator n + t^2.
Deviates from the sources in that they add 1 or 2 answers, each in a cluster of its own, and let them shift the mean;
and from the plain t bound, which few changes, all in one direction, may lead astray in one case of five at 95 %.
`tests/simulate_intervals.py` measures both.
Changes are fractions from -1 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanChange:
    """A mean change and what its bounds rest on.

    Attributes:
        difference: Candidate minus baseline, averaged over documents.
        stderr: Its clustered standard error; NaN for a single cluster.
        step: What one more cluster that changed would add to the mean, or take from it.
        n_clusters: How many clusters were asked; t has one degree of freedom less.
    """

    difference: float
    stderr: float
    step: float
    n_clusters: int

    def lower_bound(self, alpha: float) -> float:
        """Computes a one-sided lower bound.

        Args:
            alpha: Chance that the true mean lies below the bound.

        Returns:
            The bound, from -1 to 1; NaN for a single cluster.
        """
        return float(np.clip(self.difference - self._distance(alpha), -1, 1))

    def interval(self, level: float) -> tuple[float, float]:
        """Computes both ends of an interval: one-sided bounds at half of 1 - `level` each.

        Args:
            level: The interval's coverage.

        Returns:
            Low and high, from -1 to 1; NaN for a single cluster.
        """
        alpha = (1 - level) / 2
        return self.lower_bound(alpha), float(np.clip(self.difference + self._distance(alpha), -1, 1))

    def t_at(self, margin: float) -> float:
        """Computes the t whose lower bound lies at a margin: the inverse of `lower_bound`, not cut at -1.

        Args:
            margin: Where the bound is to lie, from -1 to 1.

        Returns:
            The t, negative where the margin lies above the difference.
        """
        distance = self.difference - margin
        if distance == 0:
            return 0.0
        # distance^2 = t^2 stderr^2 + t^4 step^2, solved for t^2 without taking the difference of two near numbers
        square = 2 * distance**2 / (self.stderr**2 + math.hypot(self.stderr**2, 2 * self.step * distance))
        return math.copysign(math.sqrt(square), distance)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.interval(0.95)[0]

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.interval(0.95)[1]

    def _distance(self, alpha: float) -> float:
        if self.n_clusters < 2:
            return math.nan
        t = float(stats.t.isf(alpha, self.n_clusters - 1))
        return t * math.hypot(self.stderr, t * self.step)
