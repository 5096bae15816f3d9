"""Rows going through the trunk: the prompt's pass, then one pass per new token. The only place that calls the blocks.

Rule: the engine calls the blocks itself, so what the parts of a pass wish is attached here, for the duration of a
block's call, and nothing outlives it. Rows of several plans pass a block in one call. A plain run is one part that
enters at block 0; a branch is a part that enters where it leaves the baseline, with states that were computed once.

Axis letters: b samples of the batch, r rows, s prompt positions, q positions of this pass, k positions so far, e hidden
size, g key-value heads, d head size, n new tokens so far, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lmms_ca_plugin.attention import Call, seam
from lmms_ca_plugin.engine.cache import Scaling
from lmms_ca_plugin.engine.calls import calls_of
from lmms_ca_plugin.engine.part import Part, Place
from lmms_ca_plugin.families._contract import Family, Narrow, Prompt
from lmms_ca_plugin.families._spelling import CACHE


class Cache(Protocol):
    """What a block asks of the cache that a flight hands to it."""

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Appends keys and values (r, g, q, d) of a block; returns what the rows that own their keys attend to."""


@dataclass(frozen=True)
class Step:
    """What all blocks of one pass share.

    Attributes:
        attention_mask: (r, k) bool, True at real tokens, over the positions so far and these.
        mask: What the attention kernel takes.
        arguments: What the blocks take beside states and mask.
        prefill: Whether this is the prompt's pass.
    """

    attention_mask: Tensor
    mask: Tensor | None
    arguments: dict[str, Any]
    prefill: bool


class Flight:
    """Rows in flight, under one plan or several.

    Args:
        family: The loaded checkpoint.
        prompt: The batch.
        parts: The rows, sorted by the block at which they enter.
        entering: For every such block the states (b, s, e) that enter it; behind the last block (b, 1, e) will do.
        cache: Where keys and values go.
        new_tokens: The most tokens that will be generated; the caller has checked that they fit the trunk's positions.
    """

    def __init__(
        self,
        family: Family,
        prompt: Prompt,
        parts: Sequence[Part],
        entering: Mapping[int, Tensor],
        cache: Cache,
        new_tokens: int,
    ) -> None:
        self.family, self.prompt, self.parts, self.cache = family, prompt, parts, cache
        self.seeds = [seed for part in parts for seed in part.seeds]
        self.end = self._last  # the block behind which the last position alone is looked at, if anything is
        self.whole = False  # whether that block does for every position what the last one alone is asked for
        self._entering = entering
        self._positions = torch.cat([part.take(prompt.positions) for part in parts])  # (r, s) or (r, s, ...)
        attention_mask = torch.cat([part.take(prompt.attention_mask) for part in parts])  # (r, s)
        self._attention_mask = pad(attention_mask, (0, new_tokens), value=True)  # (r, s + new tokens)
        self._is_padded = not bool(attention_mask.all())
        self._blocks = tuple(family.blocks)
        self.generated = prompt.input_ids.new_empty(len(attention_mask), 0)  # (r, n)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Puts the attention seam in place for the passes inside, and takes it out, also after an exception."""
        with attached(self.family):
            yield

    # ---- passes ------------------------------------------------------------------------------------------------------
    def prefill(self) -> Tensor:
        """Passes the prompts through the blocks: scores (r, v) of the first new token."""
        return self.scores(self.pass_prompts())

    def pass_prompts(self) -> Tensor:
        """Passes the prompts through the blocks, each row from where it enters: states (r, q, e) behind the last."""
        entries = sorted({part.first_block for part in self.parts})
        passing: list[Tensor] = []
        for block, until in zip(entries, [*entries[1:], self._last + 1], strict=True):
            passing += [part.take(self._entering[block]) for part in self.parts if part.first_block == block]
            if block > self._last:
                passing = [states[:, -1:] for states in passing]  # (r, 1, e)
            states = passing[0] if len(passing) == 1 else torch.cat(passing)  # (r, s, e)
            passing = [self.run_blocks(block, until, states, self.prompt_step(states))]
        return passing[0]

    def prompt_step(self, states: Tensor) -> Step:
        """Prepares the prompt's pass of the first rows, those of the states (r, s, e)."""
        rows, s = states.shape[:2]
        attention_mask = self._attention_mask[:rows, :s]
        return Step(
            attention_mask=attention_mask,
            mask=self.family.mask(states, attention_mask),
            arguments=self.family.block_arguments(states, self._positions[:rows]),
            prefill=True,
        )

    def step(self, tokens: Tensor) -> Tensor:
        """Appends one token per row: (r,) -> scores (r, v) of the next."""
        # With weights spread over several GPUs, tokens come from the head's and are looked up on the embedding's.
        tokens = tokens.to(self.generated.device)
        self.generated = torch.cat([self.generated, tokens[:, None]], 1)  # (r, n)
        states = self.family.embed_tokens(tokens[:, None])  # (r, 1, e)
        s, n = self._positions.shape[1], self.generated.shape[1]
        attention_mask = self._attention_mask[:, : s + n]  # (r, k)
        step = Step(
            attention_mask=attention_mask,
            # One new token sees all there is, which needs no mask; to have it found out waits for a GPU at every step.
            mask=self.family.mask(states, attention_mask) if self._is_padded else None,
            arguments=self.family.block_arguments(states, self._positions[:, -1:] + n),
            prefill=False,
        )
        return self.scores(self.run_blocks(0, self._last + 1, states, step))

    def scores(self, states: Tensor) -> Tensor:
        """What the next token is taken by: states (r, q, e) behind the last block -> logits (r, v), or their like."""
        logits = self.family.logits(states[:, -1])  # (r, v)
        if all(part.plan.rescore is None for part in self.parts):
            return logits
        placed = self._placed(len(logits))
        scores = [part.scores(logits[rows], self.generated[rows], self.family) for part, rows in placed]
        return torch.cat([of_part.to(logits.device) for of_part in scores])

    @property
    def seen(self) -> Tensor:
        """The tokens so far, (r, s + n); in the place of padding stands the prompt's last one."""
        ids = torch.cat([part.take(self.prompt.input_ids) for part in self.parts])  # (r, s)
        real = self._attention_mask[:, : ids.shape[1]]
        return torch.cat([torch.where(real, ids, ids[:, -1:]), self.generated], 1)

    def run_blocks(self, low: int, high: int, states: Tensor, step: Step) -> Tensor:
        """Passes states through blocks low..high-1: (r, q, e) -> (r, q, e), or (r, 1, e) behind the prompt's last.

        Args:
            low: The first block.
            high: The block to stop before.
            states: Hidden states entering block `low`, of the first rows.
            step: The pass they are part of.
        """
        for block in range(low, high):
            states = self._between(block, self._block(block, states, step), step)
        return states

    # ---- one block ---------------------------------------------------------------------------------------------------
    def _block(self, block: int, states: Tensor, step: Step) -> Tensor:
        placed = self._placed(len(states))
        for part, rows in placed:
            part.read(block, states, rows, step.prefill)
        states, on_input = self._edited(block, states, step)
        own = [(part, rows) for part, rows in placed if part.first_block <= block]
        calls = list(calls_of(own, block, step.attention_mask, step.prefill))
        narrow = self._narrow(block, states)
        for call, _part in calls:
            call.last_only = narrow is not None
        with ExitStack() as attached:
            if narrow is not None:
                attached.enter_context(narrow.attached(states.shape[1]))
            if on_input is not None:
                attached.enter_context(_scaled_output(self.family.input_norm(block), on_input))
            attending = [*(call for call, _part in calls), *self._shared_calls(block, step)]
            output = self.pass_block(block, states, step, attending)
        for call, asking in calls:
            if asking is not None:
                asking.keep(block, call)
        return output if narrow is None else output[:, -1:]  # (r, 1, e)

    def pass_block(self, block: int, states: Tensor, step: Step, calls: Sequence[Call]) -> Tensor:
        """Lets states (r, s, e) pass a decoder block as the model itself would; `calls` say how its rows attend."""
        output: Any = self._blocks[block](
            states,
            attention_mask=step.mask,
            use_cache=True,
            calls=calls,
            **{CACHE: self.cache},
            **step.arguments,
        )
        states = output[0] if isinstance(output, tuple) else output  # until 4.57 some blocks put out more
        return states

    def _edited(self, block: int, states: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Edits the states that enter a block, and what it will cache: (r, s, e), and factors (r, s) on its norm's."""
        if not step.prefill:
            return states, None  # an edited state stays edited: it is in the cache
        on_states, on_input, on_keys, on_values = (
            self._factors(block, place, states) for place in ("states", "attention_input", "keys", "values")
        )
        if on_values is not None:
            assert isinstance(self.cache, Scaling)  # prompts go into one that can
            self.cache.scale(block, on_keys, on_values)
        return states if on_states is None else states * on_states[..., None].to(states), on_input

    def _between(self, block: int, states: Tensor, step: Step) -> Tensor:
        after = self.family.between(block, states)
        added = self._factors(block, "added", states) if step.prefill else None
        return after if added is None else torch.lerp(states, after, added[..., None].to(states))  # (r, s, e)

    def _narrow(self, block: int, states: Tensor) -> Narrow | None:
        """Behind the end the last position alone is looked at, unless the model adds something there."""
        at_the_end = block == self.end and states.shape[1] > 1
        if not at_the_end or self.whole or block in self.family.trunk.added_after:
            return None
        return self.family.narrow(block)

    def _shared_calls(self, block: int, step: Step) -> Sequence[Call]:  # noqa: ARG002
        """How the rows attend that have no keys of their own for the prompt: here, there are none."""
        return ()

    def _factors(self, block: int, place: Place, states: Tensor) -> Tensor | None:
        """Joins the parts' factors at one place of a block: (r, s), 1 where a part has none; None if none has any."""
        parts = [part for part, _rows in self._placed(len(states))]
        factors = [part.factors(block, place) for part in parts]
        some = next((of_part for of_part in factors if of_part is not None), None)
        if some is None or len(parts) == 1:
            return some
        joined = zip(parts, factors, strict=True)
        return torch.cat([some.new_ones(len(part), some.shape[1]) if f is None else f for part, f in joined])

    def _placed(self, number: int) -> list[tuple[Part, slice]]:
        """The parts among the first `number` rows, each with its rows."""
        placed, start = [], 0
        for part in self.parts:
            if start == number:
                break
            placed.append((part, slice(start, start + len(part))))
            start += len(part)
        return placed

    @property
    def _last(self) -> int:
        """The last block."""
        return self.family.trunk.num_blocks - 1


@contextmanager
def attached(family: Family) -> Iterator[None]:
    """Puts the attention seam in place for the passes inside, and takes it out, also after an exception."""
    with seam(family.text_config), torch.inference_mode():
        yield


@contextmanager
def _scaled_output(module: nn.Module, factors: Tensor) -> Iterator[None]:
    """Scales what a module puts out, (r, s, e) by (r, s), while its block is called."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: output * factors[..., None].to(output))
    try:
        yield
    finally:
        handle.remove()
