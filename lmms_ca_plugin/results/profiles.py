"""Layer profiles: which blocks need the image tokens' states, found on one half of a sweep and confirmed on the other.

Source: the layer sweep of Song, Li, Yu, "Where Does Vision Meet Language?", section 3, read by a rule in place of the
eye. Rule, for a trunk of L blocks, blocks counted from 0, a drop being vanilla's score minus the masked run's, paired
by document, with errors clustered by picture:

* fusion: every block below L/2 whose drop at `mode=zero` has a lower bound above 5 points.
* review: the block at 3L/4 or later whose drop exceeds the drop of the block before it and of the block after it, each
  by a lower bound above 5 points; of several the one of largest drop. The last block's upper neighbour is vanilla: to
  zero the image tokens behind the last block changes nothing, since only the last text position is read there.
* post: the block before the review block. No review block, no post block.
* Bounds are one-sided at 95 %: the claim is that a drop is larger, so all of the 5 % belongs below the bound. Holm's
  rule adjusts them over the fusion candidates, and on its own over the review candidates (`claims.claims_above`).
* A half of the pictures finds; the other half confirms, by the same rule over the found blocks alone. A picture's half
  is a digest of seed and picture, so that more documents move no picture to the other half. What is found but not
  confirmed is reported and left out.

How to read it: zeroing at a block takes from the image positions what they know of the picture, for all later blocks as
well, so what a sound model loses can only shrink from block to block. A drop that exceeds the drop of the block before
is an effect of the zeroed states themselves, e.g. of the softmax mass that zeroed keys take; the knockout curve tells.
Scores are fractions from 0 to 1; the file holds percent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Literal

import numpy as np

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.layer_profile import LayerProfile
from lmms_ca_plugin.results.claims import Claim, claims_above
from lmms_ca_plugin.results.layer_scores import Flags, LayerScores, VariantScores
from lmms_ca_plugin.results.multiplicity import ALPHA
from lmms_ca_plugin.results.statistics import Interval, PairedDifference, mean_interval, paired_difference

FEWEST_BLOCKS = 4
"""Below so many blocks there is no last quarter with a block before it."""
FEWEST_CLUSTERS = 20
"""Below so many pictures in a half its bounds are not to be relied on."""

Role = Literal["fusion", "review"]


@dataclass(frozen=True)
class ProfileRules:
    """When a block counts.

    Attributes:
        margin: What a lower bound has to lie above; as a fraction of the full score.
        alpha: Level of each half, after Holm's adjustment.
        seed: Of the split into halves.
    """

    margin: float = 0.05
    alpha: float = ALPHA
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InputError(f"The margin is {100 * self.margin:g} points; allowed is 0 to below 100.")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; allowed is more than 0 and less than 1.")

    def __str__(self) -> str:
        level = f"{100 * (1 - self.alpha):g} %"
        by = f"{100 * self.margin:g} points"
        return (
            "drop = vanilla's score minus the masked run's, paired by document, errors clustered by picture. fusion: "
            f"blocks below L/2 whose drop at mode=zero has a lower bound above {by}. review: the block from 3L/4 on "
            f"whose drop exceeds both neighbours' by a lower bound above {by} (the last block's upper neighbour is "
            "vanilla), of several the one of largest drop. post: the block before it. Score bounds: one-sided, "
            f"{level}, adjusted by Holm's rule over the candidates of each. Found on one half of the pictures (sha256 "
            f"of seed {self.seed} and picture), confirmed on the other by the same rule over the found blocks."
        )


@dataclass(frozen=True)
class BlockTest:
    """What became of one candidate.

    Attributes:
        role: What it is a candidate for.
        block: The 0-based block.
        found: Its claim on the half that finds: the drop or, for review, the smaller of the excesses over a neighbour.
        confirmed: The same on the other half; None for a block that was not found.
    """

    role: Role
    block: int
    found: Claim
    confirmed: Claim | None

    @property
    def verdict(self) -> Literal["confirmed", "not confirmed", "not found"]:
        """What is to be said of the block."""
        if self.confirmed is None:
            return "not found"
        return "confirmed" if self.confirmed.holds else "not confirmed"


@dataclass(frozen=True)
class Point:
    """One block under one mode, over all documents.

    Attributes:
        drop: Vanilla minus masked.
        low: Lower end of its clustered 95 % interval, two-sided and for this block alone.
        high: Upper end.
        runaway: Share of answers that hit the token limit; None where that is not known.
    """

    drop: float
    low: float
    high: float
    runaway: Interval | None


@dataclass(frozen=True)
class BlockCurve:
    """Both modes at one block; `knockout` is None where it was not run."""

    block: int
    zero: Point
    knockout: Point | None


@dataclass(frozen=True)
class Half:
    """How many documents, on how many pictures, one half of the calibration set has."""

    documents: int
    pictures: int


@dataclass(frozen=True)
class Calibration:
    """What a profile rests on.

    Attributes:
        vanilla: The unmasked score.
        runaway: Vanilla's share of answers that hit the token limit; None where that is not known.
        finding: The half that finds.
        confirming: The half that confirms.
        rules: Margin, alpha and seed.
        source: What the caller wants kept of the sweep: tasks, limit, command.
    """

    vanilla: Interval
    runaway: Interval | None
    finding: Half
    confirming: Half
    rules: ProfileRules
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A profile with all that it rests on."""

    layers: LayerProfile
    tests: tuple[BlockTest, ...]
    curves: tuple[BlockCurve, ...]
    calibration: Calibration


def find_profile(
    scores: LayerScores,
    model_type: str,
    checkpoint_sha: str,
    rules: ProfileRules | None = None,
    source: Mapping[str, Any] | None = None,
) -> Profile:
    """Finds a checkpoint's fusion, post-integrated and review blocks.

    Args:
        scores: The layer sweep.
        model_type: The checkpoint's.
        checkpoint_sha: Digest of its weights.
        rules: Margin, alpha and seed; by default 5 points, 0.05 and 0.
        source: JSON-able facts of the sweep, to be kept in the file.

    Returns:
        The profile; without a review block, `review` and `post` are None.

    Raises:
        InputError: Fewer than 4 blocks, or fewer than 20 pictures in a half.
    """
    rules, num_blocks = rules or ProfileRules(), len(scores.zero)
    if num_blocks < FEWEST_BLOCKS:
        raise InputError(f"The sweep has {num_blocks} blocks; a profile needs at least {FEWEST_BLOCKS}.")
    finding_size, confirming_size = sizes_of_halves(scores.clusters, rules.seed)
    finds = halves(scores.clusters, rules.seed)
    finding, confirming = scores.part(finds), scores.part(~finds)
    curves = tuple(_curve(scores, block) for block in range(num_blocks))
    tests = tuple(test for role in ("fusion", "review") for test in _tests(role, finding, confirming, rules))
    fusion, reviews = (
        [test.block for test in tests if test.role == role and test.verdict == "confirmed"]
        for role in ("fusion", "review")
    )
    review = max(reviews, key=lambda block: curves[block].zero.drop, default=None)  # of equals, the first
    layers = LayerProfile(
        model_type=model_type,
        num_blocks=num_blocks,
        fusion=tuple(fusion),
        post=None if review is None else review - 1,
        review=review,
        rule=str(rules),
        checkpoint_sha=checkpoint_sha,
    )
    calibration = Calibration(
        vanilla=mean_interval(scores.vanilla.scores, scores.clusters),
        runaway=_runaway(scores.vanilla, scores.clusters),
        finding=finding_size,
        confirming=confirming_size,
        rules=rules,
        source=source or {},
    )
    return Profile(layers, tests, curves, calibration)


def halves(clusters: Sequence[str], seed: int) -> Flags:
    """Splits documents by picture.

    Args:
        clusters: (documents,) the picture of each.
        seed: Another seed, another split.

    Returns:
        (documents,) true where the document is of the half that finds; about half of the pictures are.
    """
    return np.array([hashlib.sha256(f"{seed}|{cluster}".encode()).digest()[0] % 2 == 0 for cluster in clusters])


def sizes_of_halves(clusters: Sequence[str], seed: int) -> tuple[Half, Half]:
    """Counts what `halves` deals, which needs no score.

    Args:
        clusters: (documents,) the picture of each.
        seed: As for `halves`.

    Returns:
        The half that finds, and the half that confirms.

    Raises:
        InputError: One of them has fewer than 20 pictures.
    """
    finds = halves(clusters, seed)
    finding, confirming = (Half(int(part.sum()), len(set(compress(clusters, part)))) for part in (finds, ~finds))
    if min(finding.pictures, confirming.pictures) < FEWEST_CLUSTERS:
        raise InputError(
            f"{len(clusters)} documents show {finding.pictures} pictures in the half that finds and "
            f"{confirming.pictures} in the one that confirms; {FEWEST_CLUSTERS} each are needed. Take more documents."
        )
    return finding, confirming


def candidates(role: Role, num_blocks: int) -> range:
    """Lists the blocks that are tested: below L/2 for fusion, from 3L/4 on for review, neither rounded."""
    return range((num_blocks + 1) // 2) if role == "fusion" else range(-(-3 * num_blocks // 4), num_blocks)


def _tests(role: Role, finding: LayerScores, confirming: LayerScores, rules: ProfileRules) -> list[BlockTest]:
    blocks = candidates(role, len(finding.zero))
    found = _claims(role, finding, blocks, rules)
    confirmed = _claims(role, confirming, [block for block in blocks if found[block].holds], rules)
    return [BlockTest(role, block, found[block], confirmed.get(block)) for block in blocks]


def _claims(role: Role, scores: LayerScores, blocks: Sequence[int], rules: ProfileRules) -> dict[int, Claim]:
    # The drop of a block minus a neighbour's is the neighbour's score minus its own: vanilla's cancels.
    behind = (*scores.zero, scores.vanilla)

    def pairs(block: int) -> list[PairedDifference]:
        above = [scores.vanilla] if role == "fusion" else [behind[block - 1], behind[block + 1]]
        return [_drop(other, scores.zero[block], scores.clusters) for other in above]

    return claims_above({block: pairs(block) for block in blocks}, rules.margin, rules.alpha)


def _drop(before: VariantScores, masked: VariantScores, clusters: Sequence[str]) -> PairedDifference:
    return paired_difference(masked.scores, before.scores, clusters)


def _curve(scores: LayerScores, block: int) -> BlockCurve:
    knockout = _point(scores, scores.knockout[block]) if scores.knockout else None
    return BlockCurve(block, _point(scores, scores.zero[block]), knockout)


def _point(scores: LayerScores, masked: VariantScores) -> Point:
    pair = _drop(scores.vanilla, masked, scores.clusters)
    return Point(pair.difference, pair.low, pair.high, _runaway(masked, scores.clusters))


def _runaway(variant: VariantScores, clusters: Sequence[str]) -> Interval | None:
    return None if variant.ran_away is None else mean_interval(variant.ran_away.astype(np.float64), clusters)
