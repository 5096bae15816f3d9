"""One batch going through the trunk: the prompt's pass, then one pass per new token. The only place that edits.

Rule: the engine calls the blocks itself, so a plan's reads and edits are attached here, for the duration of a block's
call, and nothing outlives it: the state of a run lives in the run, not in the model and not in the method.

Axis letters: b samples, s prompt positions, q positions of this pass, k positions so far, e hidden size, h heads,
v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lmms_ca_plugin.attention import AttentionCall, seam
from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.families._contract import Family, Prompt
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read


@dataclass(frozen=True)
class Step:
    """What all blocks of one pass share.

    Attributes:
        padding: (b, k) bool, True at real tokens, over the positions so far and these.
        mask: What the attention kernel takes.
        arguments: What the blocks take beside states and mask.
        prefill: Whether this is the prompt's pass.
    """

    padding: Tensor
    mask: Tensor | None
    arguments: dict[str, Any]
    prefill: bool


class Run:
    """A batch in flight under a plan.

    Args:
        family: The loaded checkpoint.
        plan: What the method reads and edits.
        prompt: The batch.
        new_tokens: The most tokens that will be generated; the caller has checked that they fit the trunk's positions.
    """

    def __init__(self, family: Family, plan: Plan, prompt: Prompt, new_tokens: int) -> None:
        self.family = family
        self.prompt = prompt
        self.plan = plan
        self.cache = KeyValueCache(prompt.states.shape[1] + new_tokens)
        self.reads: dict[Read, Tensor] = {}
        self.decisions: dict[Edit, Decision] = {}
        self._padding = prompt.padding  # (b, k)
        self._next = prompt.positions[:, -1] + 1  # (b,)

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per sample: what the edits decided."""
        records: list[dict[str, Any]] = [{} for _ in self.prompt.states]
        for decision in self.decisions.values():
            for record, logged in zip(records, decision.log, strict=True):
                record |= logged
        return records

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Puts the attention seam in place for the passes inside, and takes it out, also after an exception."""
        with seam(self.family.text_config), torch.inference_mode():
            yield

    # ---- passes ------------------------------------------------------------------------------------------------------
    def begin(self) -> Step:
        """Prepares the prompt's pass."""
        prompt = self.prompt
        return Step(
            padding=prompt.padding,
            mask=self.family.mask(prompt.states, prompt.padding, self.cache),
            arguments=self.family.block_arguments(prompt.states, prompt.positions),
            prefill=True,
        )

    def prefill(self) -> Tensor:
        """Passes the prompt through all blocks: logits (b, v) of the first new token."""
        states = self.run_blocks(0, self.family.trunk.num_blocks, self.prompt.states, self.begin())
        return self.family.logits(states[:, -1])

    def step(self, tokens: Tensor) -> Tensor:
        """Appends one token per sample: (b,) -> logits (b, v) of the next."""
        states = self.family.embed_tokens(tokens[:, None])  # (b, 1, e)
        self._padding = torch.cat([self._padding, self._padding.new_ones(len(tokens), 1)], 1)  # (b, k)
        step = Step(
            padding=self._padding,
            mask=self.family.mask(states, self._padding, self.cache),
            arguments=self.family.block_arguments(states, self._next[:, None]),
            prefill=False,
        )
        states = self.run_blocks(0, self.family.trunk.num_blocks, states, step)
        self._next = self._next + 1
        return self.family.logits(states[:, -1])

    def run_blocks(self, low: int, high: int, states: Tensor, step: Step) -> Tensor:
        """Passes states through blocks low..high-1: (b, q, e) -> (b, q, e).

        Args:
            low: The first block.
            high: The block to stop before.
            states: Hidden states entering block `low`.
            step: The pass they are part of.
        """
        for block in range(low, high):
            states = self.family.between(block, self._block(block, states, step))
        return states

    def _block(self, block: int, states: Tensor, step: Step) -> Tensor:
        read = Read(block)
        call = AttentionCall(step.padding, read_last=step.prefill and read in self.plan.reads)
        normed: Tensor | None = None  # (b, s) factors on the input of the block's attention
        for edit in self.plan.edits:
            if edit.block != block:
                continue
            if edit.site == "scores":
                call.bias = self._bias(edit, step)
            elif step.prefill:  # an edited state stays edited: it is in the cache
                factors = self._decide(edit).values
                if edit.site == "residual":
                    states = states * factors[..., None].to(states)
                elif edit.site == "post_norm":
                    normed = factors
                else:
                    self.cache.scale(block, factors if edit.site == "kv" else None, factors)
        with _scaled_output(self.family.input_norm(block), normed):
            output: Tensor = self.family.blocks[block](
                states,
                attention_mask=step.mask,
                past_key_values=self.cache,
                use_cache=True,
                call=call,
                **step.arguments,
            )
        if call.weights is not None:
            self.reads[read] = call.weights.mean(1).to(self.prompt.states.device)  # (b, h, s) -> (b, s)
        return output

    # ---- edits -------------------------------------------------------------------------------------------------------
    def _decide(self, edit: Edit) -> Decision:
        if edit not in self.decisions:
            self.decisions[edit] = edit.decide(self.reads, self.prompt)
        return self.decisions[edit]

    def _bias(self, edit: Edit, step: Step) -> Tensor:
        """Spreads a decision over the scores of this pass: (b, s) -> (b, 1, q, k)."""
        values = self._decide(edit).values  # (b, s)
        grown = step.padding.shape[1] - values.shape[1]
        values = torch.nn.functional.pad(values, (0, grown))  # (b, k): new keys are left alone
        if not step.prefill:
            return values[:, None, None]  # (b, 1, 1, k): a generated token is a query that is no image token
        queries = ~self.prompt.is_image  # (b, q)
        return torch.where(queries[:, None, :, None], values[:, None, None], 0.0)  # (b, 1, q, k)

    def expand(self, times: int) -> None:
        """Repeats every sample `times` times, side by side, for beams; decisions go along."""
        self.cache.expand(times)
        self._padding = self._padding.repeat_interleave(times, 0)
        self._next = self._next.repeat_interleave(times, 0)
        for edit, decision in self.decisions.items():
            self.decisions[edit] = replace(decision, values=decision.values.repeat_interleave(times, 0))


@contextmanager
def _scaled_output(module: nn.Module, factors: Tensor | None) -> Iterator[None]:
    """Scales what a module puts out, (b, s, e) by (b, s), while its block is called."""
    if factors is None:
        yield
        return
    handle = module.register_forward_hook(lambda _module, _inputs, output: output * factors[..., None].to(output))
    try:
        yield
    finally:
        handle.remove()
