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

Axis letters: b samples, s prompt positions, k positions so far, h heads, r edited queries, e hidden size, t things that
a key's weight counts for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lmms_ca_plugin.errors import CheckpointError, OptionError
from lmms_ca_plugin.families._contract import Prompt, Trunk
from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan, Probe, Read, Reads

FIRST_BLOCK = 2  # before it no token has become a sink
KNOWN_DIMS = {(32, 4096): (2533, 1415), (40, 5120): (2100, 4743)}  # by blocks and hidden size: LLaMA-2-7B and 13B
FOUND_DIMS = 2


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
        if dims is None and trunk.is_llama_2:
            dims = KNOWN_DIMS.get((trunk.num_blocks, trunk.hidden_size))
        if dims is not None:
            return self._plan(blocks, dims)
        first = tuple(Read(block, "relative", rows="first") for block in blocks)
        return Plan(probe=Probe(first, lambda reads: self._plan(blocks, self._find(reads, first))))

    def _plan(self, blocks: range, dims: tuple[int, ...]) -> Plan:
        bound = replace(self, sink_dims=dims)
        reads = tuple(Read(block, "relative", rows="all", dims=dims) for block in blocks)
        edits = tuple(Edit(read.block, "weights", _Sinks(read, bound), bound._reweigh) for read in reads)
        return Plan(reads, edits, settled={"sink_dims": dims})

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

    def _table(self, sink: Tensor, is_image: Tensor, dtype: torch.dtype) -> Tensor:
        """Says what each key counts for in sums of weights: (b, s) bool, twice -> (b, s, t); 0 without a visual sink.

        It is made once, because at a new token the number of operations takes the time, not their size.
        """
        has_sink = (sink & is_image).any(-1)[:, None, None]  # (b, 1, 1)
        sinks, image = sink.to(dtype), is_image.to(dtype)  # (b, s) each
        room = (self.max_sink_share - sinks) * image  # what visual sinks are below their largest share of the image
        shares, loses = (1 - sinks) * image, (self.keep - 1) * sinks  # in the gain, and by the loss
        return torch.stack([image, room, shares, loses], -1) * has_sink  # (b, s, t)

    def _reweigh(self, weights: Tensor, values: Tensor) -> Tensor:
        rows, table = weights.flatten(1, 2), values.to(weights)  # (b, h*r, k), (b, k, t)
        on_image, room, shared, lost = (rows @ table).unbind(-1)  # (b, h*r) each
        acts = (on_image >= self.min_attention) & (room >= 0)  # (b, h*r)
        _, _, shares, loses = table[:, None].unbind(-1)  # (b, 1, k) each
        # Not a number where there is no image token that could take a share; such rows do not act.
        change = torch.addcmul(loses, (lost / shared)[..., None], shares, value=-1)  # (b, h*r, k)
        changed = torch.where(acts[..., None], torch.addcmul(rows, rows, change), rows)  # (b, h*r, k)
        return changed.view_as(weights)  # (b, h, r, k)


@dataclass(frozen=True)
class _Sinks:
    """Finds one block's sinks."""

    read: Read
    method: Var

    def __call__(self, reads: Reads, prompt: Prompt) -> Decision:
        relative = reads[self.read]  # (b, s, dims)
        sink = (relative.amax(-1) > self.method.tau) & prompt.attention_mask  # (b, s)
        text, visual = ((sink & kind).sum(-1) for kind in (~prompt.is_image, prompt.is_image))  # (b,) each
        log = tuple(
            {
                "sink_dims": list(self.read.dims or ()),
                "text_sinks": {self.read.block: of_text},
                "visual_sinks": {self.read.block: of_image},
            }
            for of_text, of_image in zip(text, visual, strict=True)
        )
        return Decision(self.method._table(sink, prompt.is_image, relative.dtype), log)


METHOD = Var
