"""contrastive: masks the image tokens whose attention changed least between two blocks, at a third, the review block.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", section 4, equations 1 to 4. `preset=wcd` holds the settings
read from the public repository season1blue/WCD at commit da37c80.
Rule: with p(l) the last prompt token's attention over the image tokens at block l (mean over heads, sum 1), i* is the
candidate block farthest from the post-integrated block k, IA = |p(k) - p(i*)|, and the floor(rho * d) tokens of the
lowest IA are scaled by lambda at the review block.
Deviates: equation 4's interpolated quantile masks ceil(rho * (d - 1)) tokens; here it is exactly floor(rho * d), in
stable order, so that rho = 0 masks none and rho = 1 masks all. The paper gives no lambda and no site; both are options.
LLaMA normalises before attention, so scaling the residual stream by 0.1 leaves the review block's attention as it was,
and only a factor as small as 1e-9 empties its keys and values; a zero key still takes softmax mass. `site=knockout` is
the clean removal.

Axis letters: b samples, c candidate blocks, s prompt positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._contract import Kind, Prompt, Trunk
from lmms_ca_plugin.layer_profile import LayerProfile, read_profile
from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan, Read, Reads, Site
from lmms_ca_plugin.methods._distances import DISTANCES, DistanceName, distribution

PAPER_FUSION = (2, 4, 8, 11, 12, 13)
PAPER_REVIEW = 29
DEFAULT_LAMBDA = {"residual": 1e-9, "post_norm": 0.1, "kv": 0.1, "value": 0.1, "logit": 0.1}


@dataclass(frozen=True)
class Layers:
    """The blocks of one checkpoint that the method compares and edits."""

    candidates: tuple[int, ...]
    post: int
    review: int


@dataclass(frozen=True)
class Contrastive(Method):
    """Contrastive attention; the defaults are the paper's.

    Attributes:
        scope: Candidates for the pre-integrated block: `fusion` (the paper's, or the profile's), `shallow` (0..L/2-1),
            `deep` (L/2..k-1), `all` (0..k-1), or blocks joined by colons.
        post_layer: The post-integrated block k; None is the block before the review block.
        review_layer: The block that is edited; None is the paper's 29, or the profile's.
        rho: Share of image tokens to mask, 0 to 1.
        lam: Lambda, 0 to 1; None is 1e-9 at `residual` and 0.1 elsewhere. `knockout` takes none.
        site: What is scaled: `residual` (hidden state entering the block), `post_norm` (its normalised copy), `kv`,
            `value`, `logit` (log lambda is added to the attention logits), `knockout` (minus infinity is).
        distance: `hellinger` or `jsd` (Jensen-Shannon divergence, base 2); always between distributions.
        contrast: `abs`, or `positive`: rank by the signed p(k) - p(i*).
        select: `exact`: n tokens. `threshold`: all whose IA, negatives clipped to 0, is at most the n-th smallest.
        renormalise: Whether IA compares distributions (true) or raw attention mass (false).
        image_tokens: `all`, or `base`: only the view of the whole picture.
        mask_by: `contrastive`, or a control: `random` (seeded, nested over rho), `post` (lowest p(k)), `none`.
        preset: `paper`, or `wcd`; options given beside it win.
        profile: A layer profile (JSON) that names the blocks of a checkpoint.
        log_maps: Whether the record also holds p(l) of every block read, IA and the mask, over the image tokens.
    """

    scope: Literal["fusion", "shallow", "deep", "all"] | tuple[int, ...] = "fusion"
    post_layer: int | None = None
    review_layer: int | None = None
    rho: float = 0.2
    lam: float | None = None
    site: Literal["residual", "post_norm", "kv", "value", "logit", "knockout"] = "residual"
    distance: DistanceName = "hellinger"
    contrast: Literal["abs", "positive"] = "abs"
    select: Literal["exact", "threshold"] = "exact"
    renormalise: bool = True
    image_tokens: Literal["all", "base"] = "all"
    mask_by: Literal["contrastive", "random", "post", "none"] = "contrastive"
    preset: Literal["paper", "wcd"] = "paper"
    profile: str | None = None
    log_maps: bool = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "wcd": {
            "distance": "jsd",
            "scope": (2,),
            "contrast": "positive",
            "select": "threshold",
            "renormalise": False,
            "lam": 1e-9,
            "image_tokens": "base",
        },
    }

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise OptionError(f"rho={self.rho} is not a share. Allowed: 0 to 1.")
        if self.lam is not None and self.site == "knockout":
            raise OptionError(f"lam={self.lam} has no meaning at site=knockout. Leave it out, or take site=logit.")
        if self.lam is not None and not 0 <= self.lam <= 1:
            raise OptionError(f"lam={self.lam} does not scale down. Allowed: 0 to 1.")
        if self.lam == 0 and self.site == "logit":
            raise OptionError("lam=0 at site=logit is minus infinity. Take site=knockout.")

    @property
    def strength(self) -> float:
        """The value written at masked tokens: a factor, or what is added to the logits."""
        if self.site == "knockout":
            return -math.inf
        return math.log(self._lambda) if self.site == "logit" else self._lambda

    @property
    def _lambda(self) -> float:
        return DEFAULT_LAMBDA[self.site] if self.lam is None else self.lam

    @property
    def profile_file(self) -> str | None:
        """The layer profile that names the blocks, if one is given."""
        return self.profile

    def plan(self, trunk: Trunk) -> Plan:
        """Reads the candidates' and the post block's attention, edits the review block.

        Raises:
            OptionError: Blocks that the checkpoint lacks, that do not lie below the review block, or that nobody named.
            InputError: The profile cannot be read, or belongs to another kind of checkpoint.
        """
        layers = self._layers(trunk)
        wanted = {"contrastive": (*layers.candidates, layers.post), "post": (layers.post,)}.get(self.mask_by, ())
        site: Site = "scores" if self.site in ("logit", "knockout") else self.site  # type: ignore[assignment]
        bound = replace(self, scope=layers.candidates, post_layer=layers.post, review_layer=layers.review)
        settled: dict[str, Any] = {"post_layer": layers.post, "review_layer": layers.review}
        if self.site != "knockout":
            settled["lam"] = self._lambda
        if self.profile is not None and self.scope == "fusion":  # the paper's blocks have a name, a profile's have none
            settled["scope"] = layers.candidates
        return Plan(
            reads=tuple(Read(block) for block in sorted(set(wanted))),
            edits=(Edit(layers.review, site, bound._decide),),
            settled=settled,
        )

    def _layers(self, trunk: Trunk) -> Layers:
        last = trunk.num_blocks - 1
        fusion: tuple[int, ...] | None = PAPER_FUSION if trunk.is_paper_trunk else None
        review, post = (PAPER_REVIEW if trunk.is_paper_trunk else None), None
        if self.profile is not None:
            profile = self._read_profile(self.profile, trunk)
            fusion, post, review = profile.fusion, profile.post, profile.review
        review = review if self.review_layer is None else self.review_layer
        if review is None or (fusion is None and self.scope == "fusion"):
            raise OptionError(
                f"The paper's blocks are known only for LLaVA-1.5 and 1.6 on a 32-block LLaMA; this checkpoint is "
                f"{trunk.described}. Name its blocks (0 to {last}), e.g. review_layer={max(last - 2, 0)},scope=2:4, or "
                "give profile=FILE.json."
            )
        named = self.post_layer is not None or self.review_layer is not None
        post = self.post_layer if self.post_layer is not None else (review - 1 if named or post is None else post)
        half = trunk.num_blocks // 2
        scopes = {"fusion": fusion or (), "shallow": range(half), "deep": range(half, post), "all": range(post)}
        scope = scopes[self.scope] if isinstance(self.scope, str) else self.scope
        for name, blocks in (("review_layer", (review,)), ("post_layer", (post,)), ("scope", scope)):
            trunk.check_blocks(name, blocks)
            late = [b for b in blocks if b >= review and name != "review_layer"]
            if late:
                raise OptionError(
                    f"{name}: block {late[0]} is read, but does not lie below the review block {review}, which is "
                    f"edited. Allowed: 0 to {review - 1}."
                )
        candidates = tuple(sorted(set(scope) - {post}))  # the post block's distance to itself is 0: it can never win
        if not candidates:
            raise OptionError(
                f"scope={self.scope} leaves no candidate block beside post_layer={post}. Name other blocks."
            )
        return Layers(candidates, post, review)

    def _read_profile(self, file: str, trunk: Trunk) -> LayerProfile:
        profile = read_profile(file)
        if (profile.model_type, profile.num_blocks) != (trunk.model_type, trunk.num_blocks):
            raise InputError(
                f"profile={file} is of a {profile.num_blocks}-block '{profile.model_type}', but the checkpoint is a "
                f"{trunk.num_blocks}-block '{trunk.model_type}'. Make one with the checkpoint at hand."
            )
        if profile.review is None and self.review_layer is None:
            raise OptionError(
                f"profile={file} says that no review block was found. Name one with review_layer, or do without."
            )
        return profile

    # ---- the decision ------------------------------------------------------------------------------------------------
    def _decide(self, reads: Reads, prompt: Prompt) -> Decision:
        candidates, post = self.scope, self.post_layer
        assert isinstance(candidates, tuple) and post is not None  # bound by plan()
        eligible = prompt.is_image if self.image_tokens == "all" else prompt.kinds == Kind.BASE  # (b, s)
        counts = eligible.sum(-1)  # (b,)
        log: list[dict[str, Any]] = [{"review_layer": self.review_layer} for _ in prompt.seeds]
        score: Tensor | None = None  # (b, s); the lowest are masked
        if self.mask_by == "contrastive":
            maps = torch.stack([reads[Read(block)] for block in candidates], 1) * eligible[:, None]  # (b, c, s)
            target = reads[Read(post)] * eligible  # (b, s)
            distances = DISTANCES[self.distance](distribution(maps), distribution(target)[:, None])  # (b, c)
            chosen = distances.argmax(-1)  # (b,): the first of equals
            pre = maps[torch.arange(len(maps), device=maps.device), chosen]  # (b, s)
            difference = distribution(target) - distribution(pre) if self.renormalise else target - pre
            score = difference.abs() if self.contrast == "abs" else difference
            for record, row, best in zip(log, distances.tolist(), chosen.tolist(), strict=True):
                record["post_layer"] = post
                record["pre_layer"] = candidates[best]
                record["distances"] = dict(zip(candidates, row, strict=True))
        elif self.mask_by == "post":
            score = reads[Read(post)]
            for record in log:
                record["post_layer"] = post
        elif self.mask_by == "random":
            score = random_scores(eligible, prompt.seeds)
        masked = torch.zeros_like(eligible)
        if score is not None:
            number = (counts.double() * self.rho + 1e-9).floor().long()  # (b,)
            masked = lowest(score, eligible, number) if self.select == "exact" else at_most(score, eligible, number)
        for record, of, number_masked in zip(log, counts.tolist(), masked.sum(-1).tolist(), strict=True):
            record |= {
                "eligible_tokens": of,
                "masked_tokens": number_masked,
                "masked_share": number_masked / of if of else 0.0,
            }
        if self.log_maps:
            known = {block: reads[Read(block)] for block in (*candidates, post) if Read(block) in reads}
            attention = {block: distribution(weights * eligible) for block, weights in sorted(known.items())}  # (b, s)
            for row, (record, image) in enumerate(zip(log, prompt.is_image, strict=True)):
                record["maps"] = {
                    "attention": {block: p[row, image].tolist() for block, p in attention.items()},
                    "score": None if score is None else score[row, image].tolist(),
                    "masked": masked[row, image].tolist(),
                }
        neutral = 0.0 if self.site in ("logit", "knockout") else 1.0
        values = torch.full(masked.shape, neutral, device=masked.device, dtype=prompt.states.dtype)
        return Decision(values.masked_fill(masked, self.strength), tuple(log))


def lowest(score: Tensor, eligible: Tensor, number: Tensor) -> Tensor:
    """Marks each row's `number` (b,) eligible positions of lowest score (b, s); of equals, the first."""
    order = score.masked_fill(~eligible, math.inf).argsort(dim=-1, stable=True)  # (b, s)
    return order.argsort(dim=-1) < number[:, None]  # a position's place in the order is its rank


def at_most(score: Tensor, eligible: Tensor, number: Tensor) -> Tensor:
    """Marks eligible positions whose score, clipped at 0, is at most the `number`-th smallest: ties mask more."""
    clipped = score.clamp(min=0).masked_fill(~eligible, math.inf)  # (b, s)
    index = (number - 1).clamp(min=0)[:, None]
    threshold = clipped.sort(-1).values.gather(-1, index)  # (b, 1)
    return eligible & (clipped <= threshold) & (number > 0)[:, None]


def random_scores(eligible: Tensor, seeds: tuple[int, ...]) -> Tensor:
    """Ranks each row's eligible positions in an order drawn from its seed: a larger rho masks a superset."""
    scores = torch.zeros(eligible.shape, dtype=torch.float64)
    for row, (mask, seed) in enumerate(zip(eligible.cpu(), seeds, strict=True)):
        order = torch.randperm(int(mask.sum()), generator=torch.Generator().manual_seed(seed))
        scores[row, mask] = order.double()
    return scores.to(eligible.device)


METHOD = Contrastive
