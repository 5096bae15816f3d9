"""Whether variants computed together answer as each does in a run of its own, and how near a tie those are that do not.

In few bits, another order of the same sums may choose another token; a choice that was far from a tie may not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmms_ca_plugin.engine.requests import Answer


@dataclass(frozen=True)
class Agreement:
    """Answers computed together beside those of runs alone.

    Attributes:
        compared: How many.
        margins: Of those that differ, the least logit margin of a greedy choice in the run alone (`Answer.margin`);
            None where nothing was chosen greedily.
    """

    compared: int
    margins: tuple[float | None, ...]

    @classmethod
    def of(cls, together: Sequence[Answer], alone: Sequence[Answer]) -> Agreement:
        """Compares the texts of the same questions' answers, in the same order."""
        pairs = list(zip(together, alone, strict=True))
        return cls(len(pairs), tuple(own.margin for other, own in pairs if other.text != own.text))

    def __add__(self, other: Agreement) -> Agreement:
        """Joins the comparisons of two variants."""
        return Agreement(self.compared + other.compared, self.margins + other.margins)

    @property
    def differing(self) -> int:
        """How many answers differ."""
        return len(self.margins)

    @property
    def widest(self) -> float | None:
        """The largest of the margins: far above rounding, it is no rounding. None where no answer differs."""
        return max((margin for margin in self.margins if margin is not None), default=None)

    def __str__(self) -> str:
        """Says it in words."""
        if not self.margins:
            return f"{self.compared} of {self.compared} answers are the same"
        widest = "sampled" if self.widest is None else f"chosen by at most {self.widest:.3g} in logits at their closest"
        return f"{self.differing} of {self.compared} answers differ, {widest}"
