"""The rows of a pass that are under one plan: what they read, how they are changed, what they log.

Rule: the state of a run lives here, not in the model and not in the method. A part attaches nothing; it says what its
rows want of a block, and `engine/flight.py` carries it out.

Axis letters: b samples of the batch, r rows of this part, s prompt positions, k positions so far, t the last queries,
e hidden size, n new tokens so far, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from lmms_ca_plugin.attention import AttentionCall, Bias, Reweighting
from lmms_ca_plugin.engine.generation import NewTokens
from lmms_ca_plugin.families._contract import Family, Prompt
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read, Reads, Site

AtBlock = TypeVar("AtBlock", Edit, Read)
# Where factors act, by the site of the edit that gives them.
Place = Literal["states", "attention_input", "keys", "values", "added"]
PLACES: dict[Site, tuple[Place, ...]] = {
    "residual": ("states",),
    "post_norm": ("attention_input",),
    "kv": ("keys", "values"),
    "value": ("values",),
    "added": ("added",),
}


class Part:
    """Rows under one plan.

    Args:
        plan: What the method reads and edits.
        prompt: The batch.
        samples: The sample of the batch that each row answers; None is all of them, in order.
        first_block: The block at which the rows enter.
        reads: What has been read already, (b, ...) each; it is not read again in the prompt's pass.
        decisions: What has been decided already, (b, s) each; the rest is decided on the way, by rows of all samples.
    """

    def __init__(
        self,
        plan: Plan,
        prompt: Prompt,
        samples: Sequence[int] | None = None,
        first_block: int = 0,
        reads: Reads | None = None,
        decisions: Mapping[Edit, Decision] | None = None,
    ) -> None:
        self.plan, self.prompt, self.first_block = plan, prompt, first_block
        self.samples = samples
        self.reads: dict[Read, Tensor] = {read: self.take(found) for read, found in (reads or {}).items()}
        self.decisions: dict[Edit, Decision] = {
            edit: decision if samples is None else decision.of(samples) for edit, decision in (decisions or {}).items()
        }
        self._given = frozenset(self.reads)
        self._count = len(prompt.attention_mask) if samples is None else len(samples)
        self._beams = 1
        self._roomy: dict[Edit, Tensor] = {}
        # What `rescore` logged depends on a row and the tokens before; so a beam's history is found by its tokens.
        self._rescored: dict[tuple[int, tuple[int, ...]], dict[str, Any]] = {}

    @property
    def seeds(self) -> Sequence[int]:
        """The seed of each row's sample."""
        return self.prompt.seeds if self.samples is None else [self.prompt.seeds[i] for i in self.samples]

    def __len__(self) -> int:
        """Counts its rows, beams included."""
        return self._count * self._beams

    def take(self, of_samples: Tensor) -> Tensor:
        """Takes its rows out of what there is of every sample: (b, ...) -> (r, ...)."""
        return of_samples if self.samples is None else of_samples[list(self.samples)]

    def expand(self, times: int) -> None:
        """Repeats every row `times` times, side by side, for beams; decisions go along."""
        self._beams *= times
        self._roomy.clear()
        for edit, decision in self.decisions.items():
            self.decisions[edit] = replace(decision, values=decision.values.repeat_interleave(times, 0))

    # ---- what is read ------------------------------------------------------------------------------------------------
    def read(self, block: int, states: Tensor, rows: slice, in_prefill: bool) -> None:
        """Reads what the plan wants of the states that enter a block: those of its rows among all of the pass."""
        for read in self._reads.get(block, ()):
            wanted = read not in self._given if in_prefill else read.every_step
            if wanted and read.kind != "attention":
                taken = read_states(read, states[rows], self.take(self.prompt.attention_mask))
                self.reads[read] = taken.to(self.prompt.states.device)

    def keep(self, block: int, call: AttentionCall) -> None:
        """Keeps the weights that a block's call was asked to read."""
        if call.read_last and call.weights is not None:
            self.reads[Read(block)] = call.weights.mean(1).to(self.prompt.states.device)  # (r, h, s) -> (r, s)

    # ---- how it is changed -------------------------------------------------------------------------------------------
    def factors(self, block: int, place: Place) -> Tensor | None:
        """The factors (r, s) at one place of a block, in the prompt's pass: an edited state stays edited."""
        factors: Tensor | None = None
        for edit in self._edits.get(block, ()):
            if place in PLACES.get(edit.site, ()):
                values = self._decide(edit).values
                factors = values if factors is None else factors * values
        return factors

    def attends_plainly(self, block: int, in_prefill: bool) -> bool:
        """Whether its rows attend in a block as if there were no plan."""
        edited = any(edit.on_attention for edit in self._edits.get(block, ()))
        return not edited and not (in_prefill and self._reads_attention(block))

    def call(self, block: int, attention_mask: Tensor, rows: slice, in_prefill: bool) -> AttentionCall:
        """Says how its rows attend in a block.

        Args:
            block: The block.
            attention_mask: (r, k) bool, True at real tokens, over the positions so far and these.
            rows: Which rows of the pass they are.
            in_prefill: Whether this is the prompt's pass.
        """
        call = AttentionCall(attention_mask, rows, read_last=in_prefill and self._reads_attention(block))
        for edit in self._edits.get(block, ()):
            if edit.site == "scores":
                # A generated token is a query that is no image token.
                queries = ~self.take(self.prompt.is_image) if in_prefill else None  # (r, s)
                call.bias = Bias(self._on_keys(edit, attention_mask.shape[1]), queries)
            elif edit.site == "weights":
                call.reweighting = self._reweighting(edit, attention_mask.shape[1], in_prefill)
        return call

    def _reads_attention(self, block: int) -> bool:
        attention = Read(block)
        return attention in self._reads.get(block, ()) and attention not in self._given

    def _reweighting(self, edit: Edit, positions: int, in_prefill: bool) -> Reweighting | None:
        """Binds a decision to the block's own weights; None if no query of this pass comes after a picture."""
        values, reweigh = self._on_keys(edit, positions), edit.reweigh
        assert reweigh is not None  # site and function come together
        queries = self._after_image if in_prefill else None
        if queries is not None and not queries.shape[1]:
            return None
        return Reweighting(lambda weights: reweigh(weights, values.to(weights.device)), queries)

    def _on_keys(self, edit: Edit, positions: int) -> Tensor:
        """A decision's values for the keys of this pass: (r, s, ...) -> (r, k, ...), 0 at new keys.

        They are kept with room for as many positions more, so that not every step makes them anew in every block.
        """
        roomy = self._roomy.get(edit)
        if roomy is None or roomy.shape[1] < positions:
            values = self._decide(edit).values
            room = values.new_zeros(len(values), positions, *values.shape[2:])
            roomy = self._roomy[edit] = torch.cat([values, room], 1)
        return roomy[:, :positions]

    def _decide(self, edit: Edit) -> Decision:
        if edit not in self.decisions:
            self.decisions[edit] = edit.decide(self.reads, self.prompt)
        return self.decisions[edit]

    @cached_property
    def _after_image(self) -> Tensor:
        """(r, t) bool: the prompt's queries after the last image token; t positions hold those of every row."""
        is_image = self.take(self.prompt.is_image)  # (r, s)
        images_before = is_image.long().cumsum(-1)  # (r, s)
        after = ~is_image & (images_before == images_before[:, -1:]) & (images_before > 0)  # (r, s)
        return after[:, after.shape[1] - int(after.sum(-1).max()) :]

    @cached_property
    def _edits(self) -> dict[int, list[Edit]]:
        return _by_block(self.plan.edits)

    @cached_property
    def _reads(self) -> dict[int, list[Read]]:
        return _by_block(self.plan.reads)

    # ---- what comes out ----------------------------------------------------------------------------------------------
    def scores(self, logits: Tensor, generated: Tensor, family: Family) -> Tensor:
        """What the next token is taken by, after the new tokens (r, n): logits (r, v) -> (r, v)."""
        if self.plan.rescore is None:
            return logits
        scores = self.plan.rescore(logits, self.reads, generated, family)
        for row, (tokens, logged) in enumerate(zip(generated.tolist(), scores.log, strict=True)):
            self._rescored[row // self._beams, tuple(tokens)] = logged
        return scores.values

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per row: what the edits decided."""
        return joined_log(self.decisions.values(), self._count)

    def step_log(self, answers: Sequence[NewTokens]) -> list[dict[str, list[Any]]]:
        """One record per row: what `rescore` logged for each token of its answer, and for the end token if it came."""
        records: list[dict[str, list[Any]]] = [{} for _ in answers]
        if self.plan.rescore is None:
            return records
        for row, (record, answer) in enumerate(zip(records, answers, strict=True)):
            for length in range(len(answer.ids) + answer.ended):
                for name, value in self._rescored[row, tuple(answer.ids[:length])].items():
                    record.setdefault(name, []).append(value)
        return records


def _by_block(wishes: Sequence[AtBlock]) -> dict[int, list[AtBlock]]:
    return {block: [wish for wish in wishes if wish.block == block] for block in {wish.block for wish in wishes}}


def joined_log(decisions: Iterable[Decision], rows: int) -> list[dict[str, Any]]:
    """Joins the records of several edits, one per row; entries that are dicts are joined over the edits."""
    records: list[dict[str, Any]] = [{} for _ in range(rows)]
    for decision in decisions:
        for record, logged in zip(records, decision.log, strict=True):
            for name, value in logged.items():
                record[name] = record.get(name, {}) | value if isinstance(value, dict) else value
    return _fetched(records)


def _fetched(records: Sequence[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """Brings the numbers that are tensors over together: one by one, each would be waited for."""
    tensors = [tensor for record in records for tensor in _tensors(record)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else ())
    return [_told(record, numbers) for record in records]


def _tensors(record: Mapping[Any, Any]) -> Iterator[Tensor]:
    for value in record.values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value)


def _told(value: Any, numbers: Iterator[int]) -> Any:
    if isinstance(value, Tensor):
        return next(numbers)
    return {name: _told(one, numbers) for name, one in value.items()} if isinstance(value, dict) else value


def read_states(read: Read, states: Tensor, attention_mask: Tensor) -> Tensor:
    """Takes what a read wants of the states that enter its block.

    Args:
        read: Of kind `hidden` or `relative`.
        states: (r, q, e).
        attention_mask: (r, s) bool of the prompt, whose first real token is meant by `rows="first"`.

    Returns:
        (r, e), or (r, s, e) for all rows; with `dims` in place of e.
    """
    if read.rows == "last":
        states = states[:, -1].clone()  # (r, e); a view would keep the states of every position alive
    elif read.rows == "first":
        first = attention_mask.long().argmax(-1).to(states.device)  # (r,)
        states = states[torch.arange(len(states), device=states.device), first]  # (r, e)
    # A list of dims as an index would be brought to a GPU at every block, which waits for it.
    taken = states if read.dims is None else torch.stack([states[..., dim] for dim in read.dims], -1)  # (..., dims)
    if read.kind == "hidden":
        return taken
    dtype = torch.promote_types(states.dtype, torch.float32)
    size = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=dtype) / states.shape[-1] ** 0.5  # (..., 1)
    relative: Tensor = taken.to(dtype).abs() / size.clamp(min=torch.finfo(dtype).tiny)  # (..., dims)
    return relative
