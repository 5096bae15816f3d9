"""dola: takes the next token by how much its log-probability grew between an early block and the last.

Source: Chuang et al., "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models" (ICLR 2024);
formulas as in the public repository voidism/DoLa at commit 805230e, bucket rules as in transformers 4.55
(`generation/utils.py`).
Rule: hidden_states[c] are the states entering block c (c = 0: the merged embeddings). Of the candidates, the early one
is farthest from the final distribution; out = log_softmax(final) - log_softmax(early), where the final log-probability
is at least the largest plus log(relative_top), and minus infinity elsewhere.
Deviates from the reference code, which takes one early block for the whole batch, by the batch's mean: here every
sample has its own at every step, so an answer does not depend on what else was in its batch. At batch 1 they agree.
The repetition penalty counts generated tokens only (the reference's penalises the question's own words too), after the
contrast, and is off by default. One that the checkpoint itself asks for is applied besides, as to every method.
With sampling, out takes the place of the logits; with beams, its log-softmax is what the search adds up.

Axis letters: b samples, c candidate blocks, e hidden size, v vocabulary, n new tokens so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Family, Trunk
from lmms_ca_plugin.methods._contract import Method, Plan, Read, Reads, Scores


@dataclass(frozen=True)
class Dola(Method):
    """Decoding by contrasting layers.

    Attributes:
        layers: The candidates: `low` (every second block of the lower half) or `high` (of the upper half), `none` (no
            contrast), or blocks joined by colons. Above 40 blocks, `low` ends at 20 and `high` are the last 20.
        norm: Whether the final norm stands between an early state and the head; the reference code has none.
        relative_top: Tokens below this share of the likeliest token's probability are not taken; 0 to 1.
        divergence: How candidates are compared with the final distribution, M being their average: `reference` is the
            mean of KL(M||P_final) and KL(M||P_early), as in the reference code; `jsd` is the Jensen-Shannon divergence,
            the mean of KL(P_final||M) and KL(P_early||M).
        repetition_penalty: Divides positive scores of tokens that were generated already, and multiplies negative ones;
            1 is off, 1.2 is the reference's for long answers.
    """

    layers: Literal["low", "high", "none"] | tuple[int, ...] = "low"
    norm: bool = False
    relative_top: float = 0.1
    divergence: Literal["reference", "jsd"] = "reference"
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.relative_top <= 1:
            raise OptionError(f"relative_top={self.relative_top} is not a share. Allowed: 0 to 1.")
        if not 0 < self.repetition_penalty < math.inf:
            raise OptionError(
                f"repetition_penalty={self.repetition_penalty} is not allowed. Allowed: above 0; 1 is off."
            )

    def plan(self, trunk: Trunk) -> Plan:
        """Reads the last position's states at every candidate and step, and rescores every step.

        Raises:
            OptionError: A candidate that the checkpoint lacks, or a bucket that is empty on it.
        """
        candidates = self._candidates(trunk)
        return Plan(reads=tuple(map(_read, candidates)), rescore=replace(self, layers=candidates)._rescore)

    def _candidates(self, trunk: Trunk) -> tuple[int, ...]:
        if self.layers == "none":
            return ()
        count = trunk.num_blocks
        start = 2 if trunk.tied_embeddings else 0  # a tied head gives back the token that went in
        middle, upper = (count // 2, count // 2) if count <= 40 else (20, count - 20)
        buckets = {"low": range(start, middle, 2), "high": range(upper, count, 2)}
        blocks = buckets[self.layers] if isinstance(self.layers, str) else self.layers
        trunk.check_blocks("layers", blocks)
        if not blocks:
            raise OptionError(
                f"layers={self.layers} names no block of a {count}-block checkpoint. Name blocks, 0 to {count - 1}, or "
                "take layers=none for no contrast."
            )
        return tuple(sorted(set(blocks)))

    def _rescore(self, logits: Tensor, reads: Reads, generated: Tensor, family: Family) -> Scores:
        candidates = self.layers
        assert isinstance(candidates, tuple)  # bound by plan()
        log: tuple[dict[str, int], ...] = ({},) * len(logits)
        if candidates:
            states = torch.stack([reads[_read(block)] for block in candidates], 1)  # (b, c, e)
            early = log_probabilities(family.head(family.norm(states) if self.norm else states))  # (b, c, v)
            final = log_probabilities(logits.to(early.device))  # (b, v)
            chosen = DIVERGENCES[self.divergence](final[:, None], early).argmax(-1)  # (b,): the first of equals
            logits = contrast(final, early[torch.arange(len(early), device=early.device), chosen], self.relative_top)
            log = tuple({"early_layers": candidates[index]} for index in chosen.tolist())
        if self.repetition_penalty != 1:
            penalise = RepetitionPenaltyLogitsProcessor(float(self.repetition_penalty))
            logits = penalise(generated.to(logits.device), logits)
        return Scores(logits, log)


def _read(block: int) -> Read:
    return Read(block, "hidden", every_step=True)


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the last axis, in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def contrast(final: Tensor, early: Tensor, relative_top: float) -> Tensor:
    """Subtracts log-probabilities: final - early, (..., v); minus infinity where the final one is below the plausible.

    Args:
        final: (..., v) log-probabilities behind the last block.
        early: (..., v) log-probabilities of the early block.
        relative_top: Share of the largest probability that a token must reach; 0 lets all pass.
    """
    least = final.amax(-1, keepdim=True) + (math.log(relative_top) if relative_top else -math.inf)  # (..., 1)
    return (final - early).masked_fill(final < least, -math.inf)


def reference_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Mean of KL(M||P) and KL(M||Q) of log-probabilities (..., v), M = (P + Q) / 2: (...), the reference code's."""
    middle = torch.logaddexp(p, q) - math.log(2)  # (..., v)
    return (middle.exp() * (middle - (p + q) / 2)).sum(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Mean of KL(P||M) and KL(Q||M) of log-probabilities (..., v), M = (P + Q) / 2: (...), in [0, log 2]."""
    middle = torch.logaddexp(p, q) - math.log(2)  # (..., v)
    return (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1) / 2


DIVERGENCES = {"reference": reference_divergence, "jsd": jensen_shannon}

METHOD = Dola
