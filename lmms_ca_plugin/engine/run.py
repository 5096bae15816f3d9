"""One batch going through the trunk: the prompt's pass, then one pass per new token. The only place that edits.

Rule: the engine calls the blocks itself, so a plan's reads and edits are attached here, for the duration of a block's
call, and nothing outlives it: the state of a run lives in the run, not in the model and not in the method.

Axis letters: b samples, s prompt positions, q positions of this pass, r the last of them, k positions so far, e hidden
size, h heads, n new tokens so far, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lmms_ca_plugin.attention import AttentionCall, Reweighting, seam
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
        self.generated = prompt.input_ids[:, :0]  # (b, n)
        self._padding = prompt.padding  # (b, k)
        self._next = prompt.positions[:, -1] + 1  # (b,)
        # What `rescore` logged depends on a sample and the tokens before; so a beam's history is found by its tokens.
        self._rescored: dict[tuple[int, tuple[int, ...]], dict[str, Any]] = {}

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per sample: what the edits decided; entries that are dicts are joined over the edits."""
        records: list[dict[str, Any]] = [{} for _ in self.prompt.states]
        for decision in self.decisions.values():
            for record, logged in zip(records, decision.log, strict=True):
                for name, value in logged.items():
                    record[name] = record.get(name, {}) | value if isinstance(value, dict) else value
        return records

    def step_log(self, answers: Sequence[list[int]]) -> list[dict[str, list[Any]]]:
        """One record per sample: what `rescore` logged for each token of its answer, and for the end if it came.

        Args:
            answers: The new token ids of every sample, without the end token.
        """
        records: list[dict[str, list[Any]]] = [{} for _ in answers]
        for row, (record, answer) in enumerate(zip(records, answers, strict=True)):
            for length in range(len(answer) + 1):
                for name, value in self._rescored.get((row, tuple(answer[:length])), {}).items():
                    record.setdefault(name, []).append(value)
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
        """Passes the prompt through all blocks: logits or, under a `rescore`, scores (b, v) of the first new token."""
        states = self.run_blocks(0, self.family.trunk.num_blocks, self.prompt.states, self.begin())
        return self.scores(states)

    def step(self, tokens: Tensor) -> Tensor:
        """Appends one token per sample: (b,) -> logits or, under a `rescore`, scores (b, v) of the next."""
        self.generated = torch.cat([self.generated, tokens[:, None]], 1)  # (b, n)
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
        return self.scores(states)

    def scores(self, states: Tensor) -> Tensor:
        """What the next token is taken by: states (b, q, e) behind the last block -> (b, v)."""
        logits = self.family.logits(states[:, -1])
        if self.plan.rescore is None:
            return logits
        scores = self.plan.rescore(logits, self.reads, self.generated, self.family)
        beams = len(logits) // len(self.prompt.states)
        for row, (tokens, logged) in enumerate(zip(self.generated.tolist(), scores.log, strict=True)):
            self._rescored[row // beams, tuple(tokens)] = logged
        return scores.values

    def run_blocks(self, low: int, high: int, states: Tensor, step: Step) -> Tensor:
        """Passes states through blocks low..high-1: (b, q, e) -> (b, q, e).

        Args:
            low: The first block.
            high: The block to stop before.
            states: Hidden states entering block `low`.
            step: The pass they are part of.
        """
        for block in range(low, high):
            states = self._between(block, self._block(block, states, step), step)
        return states

    def _between(self, block: int, states: Tensor, step: Step) -> Tensor:
        after = self.family.between(block, states)
        for edit in self._edits(block):
            if edit.site == "added" and step.prefill:
                after = torch.lerp(states, after, self._decide(edit).values[..., None].to(states))  # (b, s, e)
        return after

    def _edits(self, block: int) -> list[Edit]:
        return [edit for edit in self.plan.edits if edit.block == block]

    def _block(self, block: int, states: Tensor, step: Step) -> Tensor:
        attention = Read(block)
        for read in self.plan.reads:
            if read.block == block and read != attention and (step.prefill or read.every_step):
                self.reads[read] = read_states(read, states, self.prompt.padding).to(self.prompt.states.device)
        call = AttentionCall(step.padding, read_last=step.prefill and attention in self.plan.reads)
        normed: Tensor | None = None  # (b, s) factors on the input of the block's attention
        for edit in self._edits(block):
            if edit.site == "scores":
                call.bias = self._bias(edit, step)
            elif edit.site == "weights":
                call.reweighting = self._reweighting(edit, step)
            elif edit.site != "added" and step.prefill:  # an edited state stays edited: it is in the cache
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
            self.reads[attention] = call.weights.mean(1).to(self.prompt.states.device)  # (b, h, s) -> (b, s)
        return output

    # ---- edits -------------------------------------------------------------------------------------------------------
    def _decide(self, edit: Edit) -> Decision:
        if edit not in self.decisions:
            self.decisions[edit] = edit.decide(self.reads, self.prompt)
        return self.decisions[edit]

    def _bias(self, edit: Edit, step: Step) -> Tensor:
        """Spreads a decision over the scores of this pass: (b, s) -> (b, 1, q, k)."""
        values = self._on_keys(edit, step)
        if not step.prefill:
            return values[:, None, None]  # (b, 1, 1, k): a generated token is a query that is no image token
        queries = ~self.prompt.is_image  # (b, q)
        return torch.where(queries[:, None, :, None], values[:, None, None], 0.0)  # (b, 1, q, k)

    def _reweighting(self, edit: Edit, step: Step) -> Reweighting | None:
        """Binds a decision to the block's own weights; None if no query of this pass comes after a picture."""
        values, reweigh = self._on_keys(edit, step), edit.reweigh
        assert reweigh is not None  # site and function come together
        queries = self._after_image if step.prefill else None
        if queries is not None and not queries.shape[1]:
            return None
        return Reweighting(lambda weights: reweigh(weights, values.to(weights.device)), queries)

    def _on_keys(self, edit: Edit, step: Step) -> Tensor:
        """A decision's values for the keys of this pass: (b, s) -> (b, k); 0 at new keys, which are left alone."""
        values = self._decide(edit).values
        return torch.nn.functional.pad(values, (0, step.padding.shape[1] - values.shape[1]))

    @cached_property
    def _after_image(self) -> Tensor:
        """(b, r) bool: the prompt's queries after the last image token; r positions hold those of every sample."""
        images_before = self.prompt.is_image.long().cumsum(-1)  # (b, s)
        after = ~self.prompt.is_image & (images_before == images_before[:, -1:]) & (images_before > 0)  # (b, s)
        return after[:, after.shape[1] - int(after.sum(-1).max()) :]

    def expand(self, times: int) -> None:
        """Repeats every sample `times` times, side by side, for beams; decisions go along."""
        self.cache.expand(times)
        self.generated = self.generated.repeat_interleave(times, 0)
        self._padding = self._padding.repeat_interleave(times, 0)
        self._next = self._next.repeat_interleave(times, 0)
        for edit, decision in self.decisions.items():
            self.decisions[edit] = replace(decision, values=decision.values.repeat_interleave(times, 0))


def read_states(read: Read, states: Tensor, padding: Tensor) -> Tensor:
    """Takes what a read wants of the states that enter its block.

    Args:
        read: Of kind `hidden` or `relative`.
        states: (b, q, e).
        padding: (b, s) bool of the prompt, whose first real token is meant by `rows="first"`.

    Returns:
        (b, e), or (b, s, e) for all rows; with `dims` in place of e.
    """
    if read.rows == "last":
        states = states[:, -1].clone()  # (b, e); a view would keep the states of every position alive
    elif read.rows == "first":
        first = padding.long().argmax(-1).to(states.device)  # (b,)
        states = states[torch.arange(len(states), device=states.device), first]  # (b, e)
    taken = states if read.dims is None else states[..., list(read.dims)]  # (..., dims)
    if read.kind == "hidden":
        return taken
    dtype = torch.promote_types(states.dtype, torch.float32)
    size = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=dtype) / states.shape[-1] ** 0.5  # (..., 1)
    relative: Tensor = taken.to(dtype).abs() / size.clamp(min=torch.finfo(dtype).tiny)  # (..., dims)
    return relative


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
