"""What paired ratios say: their median, an interval, and whether a target is met.

Source: the interval is the order-statistic confidence interval of a quantile (Conover, "Practical Nonparametric
Statistics", 3rd edition, section 3.2), as `scipy.stats.quantile_test` computes it: it assumes nothing about how the
ratios are spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import quantile_test

Verdict = Literal["met", "missed", "undecided"]
LEAST_PAIRS = 9
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """The median of paired ratios, and where it may lie.

    Attributes:
        ratios: A method's measure over vanilla's, one per pair.
        median: Their median.
        low: Lower end of the interval; None where too few pairs were measured for one.
        high: Upper end.
    """

    ratios: tuple[float, ...]
    median: float
    low: float | None
    high: float | None

    @classmethod
    def of_noisy(cls, ratios: Sequence[float]) -> Estimate:
        """Estimates from measures that differ from pair to pair: the median's 95 % interval.

        Args:
            ratios: One per pair; below 9 of them no interval is claimed.
        """
        low, high = math.nan, math.nan
        if len(ratios) >= LEAST_PAIRS:
            test = quantile_test(list(ratios), q=1.0, p=0.5)
            low, high = map(float, test.confidence_interval(CONFIDENCE))
        interval = (None, None) if math.isnan(low) or math.isnan(high) else (low, high)
        return cls(tuple(ratios), statistics.median(ratios), *interval)

    @classmethod
    def of_repeatable(cls, ratios: Sequence[float]) -> Estimate:
        """Estimates from measures that the same run repeats to the byte: the interval is their range.

        Args:
            ratios: One per pass, at least two, so that the claim is tried.
        """
        interval = (min(ratios), max(ratios)) if len(ratios) > 1 else (None, None)
        return cls(tuple(ratios), statistics.median(ratios), *interval)

    def verdict(self, target: float) -> Verdict:
        """Says whether the median is at most `target`: `undecided` where the interval holds it, or there is none."""
        if self.low is None or self.high is None or self.low <= target <= self.high:
            return "undecided"
        return "met" if self.high < target else "missed"

    def reaches(self, least: float) -> Verdict:
        """Says whether the median is at least `least`, by the same rule."""
        if self.low is None or self.high is None or self.low <= least <= self.high:
            return "undecided"
        return "met" if self.low > least else "missed"

    def over(self, unit: float) -> Estimate:
        """The same estimate in another unit."""
        low, high = (None if end is None else end / unit for end in (self.low, self.high))
        return Estimate(tuple(ratio / unit for ratio in self.ratios), self.median / unit, low, high)


@dataclass(frozen=True)
class Claim:
    """What is to be shown.

    Attributes:
        what: In words.
        estimate: What was measured of it.
        most: It should be at most this.
        least: And at least this; None has no lower end.
    """

    what: str
    estimate: Estimate
    most: float
    least: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether it was shown."""
        ends = [self.estimate.verdict(self.most)]
        if self.least is not None:
            ends.append(self.estimate.reaches(self.least))
        return overall(ends) or "undecided"


def overall(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Joins verdicts: one missed target is a miss, else one undecided leaves all undecided; None of none."""
    return next((v for v in ("missed", "undecided", "met") if v in verdicts), None)
