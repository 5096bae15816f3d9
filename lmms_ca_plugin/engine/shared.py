"""What all variants of a batch have in common: the baseline's pass, and which branches really differ.

Rule: a variant is the baseline up to its first edited block, so the baseline passes once, and is kept where some
variant leaves it. Nothing is computed twice: branches of one sample that decided the same, bit by bit, are one branch,
and one whose decisions change nothing is the baseline.

Axis letters: b samples, s prompt positions, e hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.engine.part import Part, joined_log
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.families._contract import Family, Prompt
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read, Reads


@dataclass(frozen=True)
class Shared:
    """The baseline of a batch.

    Attributes:
        prompt: The batch.
        top: The block before which the baseline ends: the highest at which a variant leaves it.
        entering: The states (b, s, e) that enter each block at which a variant leaves; behind the last block (b, 1, e).
        reads: What the variants read of it, (b, ...) each.
        cache: Its keys and values below `top`.
    """

    prompt: Prompt
    top: int
    entering: Mapping[int, Tensor]
    reads: Reads
    cache: KeyValueCache


def shared_pass(family: Family, prompt: Prompt, plans: Mapping[str, Plan], cache: KeyValueCache) -> Shared:
    """Passes the prompts through the blocks below the highest at which a variant leaves the baseline.

    Args:
        family: The loaded checkpoint, with the seam attached.
        prompt: The batch.
        plans: The variants.
        cache: Where keys and values go.
    """
    blocks = family.trunk.num_blocks
    reads = dict.fromkeys(read for plan in plans.values() for read in plan.shared_reads(blocks))
    run = Run(family, Plan(reads=tuple(reads)), prompt, 0, cache)
    step, states, low = run.begin(), prompt.states, 0
    entering = {}
    for block in sorted({plan.first_block(blocks) for plan in plans.values()}):
        states = run.run_blocks(low, block, states, step)
        entering[block], low = states, block
    # A variant's edits may rest on the states that enter its own block, into which the baseline does not go.
    run.part.read(low, states, slice(None), in_prefill=True)
    return Shared(prompt, low, entering, run.reads, cache)


@dataclass(frozen=True)
class Branch:
    """The samples for which a variant is computed.

    Attributes:
        variant: Its name.
        plan: What it does to them: its plan, or that without edits where they change nothing.
        first_block: The block at which it leaves the baseline.
        samples: Which samples.
        given: The reads that are the baseline's; another variant may have wanted more of it, above this one's edits.
    """

    variant: str
    plan: Plan
    first_block: int
    samples: tuple[int, ...]
    given: tuple[Read, ...]


@dataclass(frozen=True)
class Branching:
    """How the variants of a batch are computed.

    Attributes:
        branches: What is computed.
        computed_as: For each variant and sample, the variant whose branch has its answer.
        decisions: What variants decided, (b, s) each; those that read their own states decide on their way.
        observed: What variants that change nothing logged, one record per sample.
    """

    branches: tuple[Branch, ...]
    computed_as: Mapping[str, tuple[str, ...]]
    decisions: Mapping[str, Mapping[Edit, Decision]]
    observed: Mapping[str, Sequence[dict[str, Any]]]

    def part(self, branch: Branch, shared: Shared) -> Part:
        """Makes the rows of a branch, with what the baseline's pass has found out for them."""
        everyone = len(branch.samples) == len(shared.prompt.attention_mask)
        reads = {read: shared.reads[read] for read in branch.given}
        samples = None if everyone else branch.samples
        decided = self.decisions.get(branch.variant)
        return Part(branch.plan, shared.prompt, samples, branch.first_block, reads, decided)

    def log(self, variant: str) -> list[dict[str, Any]] | None:
        """One record per sample: what a variant's edits decided, or it observed; None if they decide on their way."""
        if variant in self.observed:
            return list(self.observed[variant])
        decided = self.decisions.get(variant)
        return None if decided is None else joined_log(decided.values(), len(self.computed_as[variant]))


def branching(plans: Mapping[str, Plan], shared: Shared, num_blocks: int) -> Branching:
    """Finds out which branches differ.

    Args:
        plans: The variants; equal methods have one and the same plan.
        shared: The baseline.
        num_blocks: Blocks of the trunk.

    Returns:
        The branches, in the order of the blocks at which they leave the baseline.
    """
    functions = _Functions()
    first: dict[tuple[int, Hashable], str] = {}
    rows: dict[tuple[str, bool], list[int]] = {}
    computed_as: dict[str, tuple[str, ...]] = {}
    decisions: dict[str, dict[Edit, Decision]] = {}
    observed: dict[str, Sequence[dict[str, Any]]] = {}
    for name, plan in plans.items():
        effects: list[tuple[Hashable, ...]] = [(id(plan),)] * len(shared.prompt.attention_mask)
        if len(plan.shared_reads(num_blocks)) == len(plan.reads):
            reads = {read: shared.reads[read] for read in plan.reads}
            decisions[name] = {edit: edit.decide(reads, shared.prompt) for edit in plan.edits}
            effects = _effects(decisions[name], len(effects), functions)
            if plan.observe is not None:
                observed[name] = plan.observe(reads, shared.prompt)
        ending = None if plan.rescore is None else (functions.number(plan.rescore), plan.reads)
        computed_as[name] = tuple(
            first.setdefault((sample, (effect, ending)), name) for sample, effect in enumerate(effects)
        )
        for sample, effect in enumerate(effects):
            if computed_as[name][sample] == name:
                rows.setdefault((name, bool(effect)), []).append(sample)
    branches = []
    for (name, edited), samples in rows.items():
        plan, given = plans[name], plans[name].shared_reads(num_blocks)
        leaves = plan.first_block(num_blocks) if edited else shared.top
        branches.append(Branch(name, plan if edited else replace(plan, edits=()), leaves, tuple(samples), given))
    return Branching(tuple(sorted(branches, key=lambda branch: branch.first_block)), computed_as, decisions, observed)


class _Functions:
    """Numbers functions, the same for equal ones: methods of equal objects are equal here, though not in Python."""

    def __init__(self) -> None:
        self._known: list[Callable[..., Any]] = []

    def number(self, function: Callable[..., Any] | None) -> int | None:
        if function is None:
            return None
        for number, known in enumerate(self._known):
            if _same(known, function):
                return number
        self._known.append(function)
        return len(self._known) - 1


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "__func__") and hasattr(other, "__func__"):
        return one.__func__ is other.__func__ and bool(one.__self__ == other.__self__)
    return bool(one == other)


def _effects(decisions: Mapping[Edit, Decision], samples: int, functions: _Functions) -> list[tuple[Hashable, ...]]:
    """For each sample what the edits do to it, to be compared; nothing for edits that change nothing."""
    effects: list[tuple[Hashable, ...]] = [()] * samples
    for edit, decision in decisions.items():
        decided = decision.values.flatten(1)  # (b, s), or (b, s*t)
        neutral = (decided == edit.neutral).all(-1).tolist()
        values = decided.contiguous().view(torch.uint8).cpu().numpy()  # (b, s * bytes)
        where = (edit.block, edit.site, functions.number(edit.reweigh))
        for sample, nothing in enumerate(neutral):
            if not nothing:
                effects[sample] = (*effects[sample], (*where, values[sample].tobytes()))
    return effects
