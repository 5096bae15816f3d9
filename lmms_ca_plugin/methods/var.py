"""var: moves attention from sink tokens to the image tokens that are no sinks (visual attention redistribution).

Source: Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models" (ICLR 2025); constants
and the order of steps as in the public repository seilk/VisAttnSink at commit 98e62d6.
Rule: a token is a sink of a block if, of the states entering it, the largest |h| / rms(h) over the sink dims is above
tau. Sinks are fixed in the prefill, per block and sample, for blocks 2..L-2. There, per head and per query (the
prompt's after the last image token, and every new token), S being the attention on the image: where S >= min_attention,
the visual sinks' part of S is at most max_sink_share, and the sample has a visual sink, all sinks' weights, text and
visual, are scaled by keep, and what is freed goes to the other image tokens in proportion to their weights.
Deviates from the repository's code, in favour of the paper's text: there, sinks of the first sample stay in use for all
later ones, and the prompt is tokenised again without its first token.
Sink dims are known for LLaMA-2 trunks. For others they are found once, at load, on the self-check's prompt: the two
dims with the largest median |h| / rms(h) over the blocks at the first prompt token. In a causal trunk the first token's
states depend on that token alone, so a prompt that begins alike has the same: they belong to the checkpoint, not to the
sample. Every sample's log names them.

Axis letters: b samples, s prompt positions, k positions so far, h heads, r edited queries, e hidden size, t roles that
change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from lmms_ca_plugin.errors import CheckpointError, OptionError
from lmms_ca_plugin.families._contract import Prompt, Trunk
from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan, Probe, Read, Reads

FIRST_BLOCK = 2  # before it no token has become a sink
LLAMA_2_VOCABULARY = range(32000, 32128)  # with LLaVA's padding; LLaMA-3 has the same shape, but other dims
KNOWN_DIMS = {(32, 4096): (2533, 1415), (40, 5120): (2100, 4743)}  # by blocks and hidden size: LLaMA-2-7B and 13B
FOUND_DIMS = 2


class Role(IntEnum):
    """What a key is to the redistribution."""

    OTHER = 0  # in a sample without a visual sink, which is left alone, every key
    TEXT_SINK = 1
    VISUAL_SINK = 2
    VISUAL = 3  # an image token that is no sink


@dataclass(frozen=True)
class Var(Method):
    """Visual attention redistribution.

    Attributes:
        tau: A token is a sink above this |h| / rms(h), which is at most sqrt(hidden size).
        keep: What sinks keep of their weight, 0 to 1; 1 changes nothing.
        min_attention: Heads are changed whose query gives the image at least this much attention, 0 to 1.
        max_sink_share: ... and of it at most this share to visual sinks, 0 to below 1.
        sink_dims: Hidden dimensions joined by colons; None takes the trunk's known ones, or finds two at load.
    """

    tau: float = 20.0
    keep: float = 0.6
    min_attention: float = 0.2
    max_sink_share: float = 0.5
    sink_dims: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tau < math.inf:
            raise OptionError(f"tau={self.tau} is not allowed. Allowed: above 0, below sqrt(hidden size).")
        if not 0 <= self.keep <= 1:
            raise OptionError(f"keep={self.keep} is not a share. Allowed: 0 to 1.")
        if not 0 < self.min_attention <= 1:
            raise OptionError(f"min_attention={self.min_attention} is not allowed. Allowed: above 0, up to 1.")
        if not 0 <= self.max_sink_share < 1:
            raise OptionError(
                f"max_sink_share={self.max_sink_share} is not allowed. Allowed: 0 to below 1, so that some image token "
                "is left that can take what is freed."
            )

    def plan(self, trunk: Trunk) -> Plan:
        """Reads the sink dims of every block 2..L-2 and edits its attention weights.

        Raises:
            OptionError: A tau that no state can reach, dims that the trunk lacks, or a trunk with too few blocks.
        """
        reachable = math.sqrt(trunk.hidden_size)
        if self.tau >= reachable:
            raise OptionError(
                f"tau={self.tau:g} cannot be exceeded: |h| / rms(h) is at most sqrt(hidden size) = {reachable:.4g}. "
                "Give a smaller tau."
            )
        if trunk.num_blocks < FIRST_BLOCK + 2:
            raise OptionError(
                f"var edits the blocks {FIRST_BLOCK}..L-2; this checkpoint has {trunk.num_blocks} blocks, so none is "
                f"left. Needed: at least {FIRST_BLOCK + 2}."
            )
        outside = [dim for dim in self.sink_dims or () if not 0 <= dim < trunk.hidden_size]
        if outside:
            raise OptionError(
                f"sink_dims: the hidden states have no dimension {outside[0]}. Allowed: 0 to {trunk.hidden_size - 1}."
            )
        blocks = range(FIRST_BLOCK, trunk.num_blocks - 1)
        dims = self.sink_dims
        if dims is None and trunk.text_type == "llama" and trunk.vocabulary in LLAMA_2_VOCABULARY:
            dims = KNOWN_DIMS.get((trunk.num_blocks, trunk.hidden_size))
        if dims is not None:
            return self._plan(blocks, dims)
        first = tuple(Read(block, "relative", rows="first") for block in blocks)
        return Plan(probe=Probe(first, lambda reads: self._plan(blocks, self._find(reads, first))))

    def _plan(self, blocks: range, dims: tuple[int, ...]) -> Plan:
        bound = replace(self, sink_dims=dims)
        reads = tuple(Read(block, "relative", rows="all", dims=dims) for block in blocks)
        edits = tuple(Edit(read.block, "weights", _Sinks(read, self.tau), bound._reweigh) for read in reads)
        return Plan(reads, edits)

    def _find(self, reads: Reads, first: tuple[Read, ...]) -> tuple[int, ...]:
        values = torch.stack([reads[read][0] for read in first])  # (blocks, e)
        medians = values.quantile(0.5, dim=0)  # (e,)
        largest = medians.topk(FOUND_DIMS)
        if largest.values[0] <= self.tau:
            raise CheckpointError(
                f"var: no sink dims. At the first prompt token no hidden dimension's median |h| / rms(h) over blocks "
                f"{first[0].block} to {first[-1].block} exceeds tau={self.tau:g}; the largest is "
                f"{float(largest.values[0]):.3g}, at dimension {int(largest.indices[0])}. Give sink_dims=..., or a "
                "smaller tau."
            )
        return tuple(largest.indices.tolist())

    def _reweigh(self, weights: Tensor, values: Tensor) -> Tensor:
        # Products with the roles do it all: at a new token, the number of operations takes the time, not their size.
        roles = torch.arange(1, len(Role), device=values.device)  # (t,), without OTHER
        by_role, rows = (values[..., None] == roles).to(weights), weights.flatten(1, 2)  # (b, k, t), (b, h*r, k)
        text_sinks, visual_sinks, visual = (rows @ by_role).unbind(-1)  # (b, h*r) each
        image = visual_sinks + visual  # (b, h*r)
        acts = (image >= self.min_attention) & (visual_sinks <= self.max_sink_share * image)  # (b, h*r)
        freed = (1 - self.keep) * (text_sinks + visual_sinks)  # (b, h*r)
        gain = torch.where(acts, freed / visual, 0.0)  # (b, h*r)
        loss = torch.where(acts, self.keep - 1, 0.0).to(gain)  # (b, h*r)
        change = torch.stack([loss, loss, gain], -1) @ by_role.mT  # (b, h*r, k)
        return torch.addcmul(weights, weights, change.view_as(weights))  # (b, h, r, k)


@dataclass(frozen=True)
class _Sinks:
    """Finds one block's sinks."""

    read: Read
    tau: float

    def __call__(self, reads: Reads, prompt: Prompt) -> Decision:
        sink = (reads[self.read].amax(-1) > self.tau) & prompt.padding  # (b, s)
        roles = torch.full(sink.shape, float(Role.OTHER), device=sink.device)  # (b, s)
        roles = roles.masked_fill(prompt.is_image, Role.VISUAL).masked_fill(sink & prompt.is_image, Role.VISUAL_SINK)
        roles = roles.masked_fill(sink & ~prompt.is_image, Role.TEXT_SINK)
        counts = torch.stack([(roles == role).sum(-1) for role in (Role.TEXT_SINK, Role.VISUAL_SINK)], -1)  # (b, 2)
        log = tuple(
            {
                "sink_dims": list(self.read.dims or ()),
                "text_sinks": {self.read.block: text},
                "visual_sinks": {self.read.block: visual},
            }
            for text, visual in counts.tolist()
        )
        has_sink = (roles == Role.VISUAL_SINK).any(-1, keepdim=True)  # (b, 1)
        return Decision(torch.where(has_sink, roles, Role.OTHER), log)


METHOD = Var
