"""The engine's front for many variants: one pass of the baseline per batch, and a branch for what differs.

A variant's answers and logs are those of a run of its own. Works for every method that answers the questions as they
were asked; one that makes its own inputs shares no pass with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmms_ca_plugin.engine.branches import Branches
from lmms_ca_plugin.engine.budget import Batch, budget_of, capacities
from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.engine.decode import decode
from lmms_ca_plugin.engine.flight import attached
from lmms_ca_plugin.engine.front import Front
from lmms_ca_plugin.engine.generation import Generation, NewTokens
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions
from lmms_ca_plugin.engine.selfcheck import complete, self_check
from lmms_ca_plugin.engine.shared import Branching, branching, shared_pass
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Family, Inputs, Prompt, Question
from lmms_ca_plugin.methods._contract import Method, Plan


class Branched(Front[dict[str, Answer]]):
    """A loaded checkpoint with several variants, computed together.

    Args:
        family: The loaded checkpoint.
        variants: Methods by the names that the answers go under; their plans must fit the checkpoint.
        options: How runs are carried out; a trace is for one method alone.
        memory_gib: What may be used beside the weights; None measures (`engine/budget.py`).
        name: For the progress bar and for messages.
        is_main: Whether this process shows progress.

    Raises:
        OptionError: No variant, one that shares no pass with others, or options that do not fit.
        CheckpointError: A variant does not do on this checkpoint what it says.
    """

    def __init__(
        self,
        family: Family,
        variants: Mapping[str, Method],
        options: RunOptions,
        memory_gib: float | None = None,
        name: str = "variants",
        is_main: bool = True,
    ) -> None:
        super().__init__(family, options, name, is_main)
        check_variants(variants, options)
        self.variants = dict(variants)
        self.memory = budget_of(family, memory_gib)
        plans: dict[Method, Plan] = {}
        for method in self.variants.values():
            if method not in plans:
                plans[method] = complete(family, method.plan(family.trunk))
        # Equal methods have one plan, so that what they do is known to be the same.
        self.plans = {name: plans[method] for name, method in self.variants.items()}
        self_check(family, *plans.values())

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], dict[str, list[Answer]]]]:
        """Answers questions under every variant, batch by batch, with a progress bar.

        Args:
            requests: Questions with their settings.

        Yields:
            Indices into `requests`, and for every variant the answers to these.

        Raises:
            OptionError: Beams are asked for.
            GenerationError: A question could not be answered; the message names it.
        """
        for request in requests:
            self._check_generation(request.generation)
        for indices, answered in self.each_batch(requests):
            yield indices, self._by_variant(answered)

    def answer_batch(self, questions: Sequence[Question], generation: Generation) -> dict[str, list[Answer]]:
        """Answers questions that share their settings, in one batch if it fits.

        Args:
            questions: The questions.
            generation: Greedy or sampled.

        Returns:
            For every variant one answer per question; `same_as` names the variant that it was computed with, if any.

        Raises:
            OptionError: Beams are asked for.
            MemoryLimitError: A question does not fit, even alone.
        """
        self._check_generation(generation)
        return self._by_variant(self._answer_now(questions, generation))

    def _by_variant(self, answered: Sequence[dict[str, Answer]]) -> dict[str, list[Answer]]:
        return {name: [answers[name] for answers in answered] for name in self.variants}

    def _check_generation(self, generation: Generation) -> None:
        if generation.num_beams > 1:
            raise OptionError(
                f"num_beams={generation.num_beams} is not supported with several variants at a time: each would search "
                "beams of its own. Run the variants one by one, or take num_beams=1."
            )

    # ---- one batch ---------------------------------------------------------------------------------------------------
    def _answer_together(
        self, questions: Sequence[Question], generation: Generation, inputs: Inputs | None
    ) -> list[dict[str, Answer]]:
        inputs = self.family.encode(questions) if inputs is None else inputs
        self.check_length(inputs, generation)
        trunk, (samples, positions) = self.family.trunk, inputs.input_ids.shape
        batch = Batch(trunk, self.family.model.dtype.itemsize, samples, positions, generation.max_new_tokens)
        first_blocks = {name: plan.first_block(trunk.num_blocks) for name, plan in self.plans.items()}
        together = batch.together(self.family.model.device, self.memory)
        groups = batch.groups(first_blocks, together, self.memory)
        prompt = self.prompt(inputs)
        with attached(self.family):
            cache = KeyValueCache(capacities(self.plans, groups, batch))
            return self._branch(prompt, cache, groups, together, generation)

    def _branch(
        self,
        prompt: Prompt,
        cache: KeyValueCache,
        groups: Sequence[Sequence[str]],
        together: int,
        generation: Generation,
    ) -> list[dict[str, Answer]]:
        shared = shared_pass(self.family, prompt, self.plans, cache)
        ways = branching(self.plans, shared, self.family.trunk.num_blocks)
        found: dict[tuple[str, int], _Found] = {}
        for group in groups:
            branches = [branch for branch in ways.branches if branch.variant in group]
            parts = [ways.part(branch, shared) for branch in branches]
            if not parts:
                continue  # all of them are computed in other groups
            flight = Branches(self.family, shared, parts, generation.max_new_tokens, together)
            decoded = iter(decode(flight, generation, self.end_tokens, self.to_text))
            for branch, part in zip(branches, parts, strict=True):
                tokens = [next(decoded) for _ in branch.samples]
                rows = zip(branch.samples, tokens, part.log, part.step_log(tokens), strict=True)
                for sample, new, decided, steps in rows:
                    found[branch.variant, sample] = _Found(new, decided, steps, branch.first_block)
        by_variant = {name: self._answers_of(name, prompt, ways, found, generation) for name in self.variants}
        return [{name: answers[sample] for name, answers in by_variant.items()} for sample in range(len(prompt.seeds))]

    def _answers_of(
        self,
        name: str,
        prompt: Prompt,
        ways: Branching,
        found: Mapping[tuple[str, int], _Found],
        generation: Generation,
    ) -> list[Answer]:
        sources = ways.computed_as[name]
        rows = [found[source, sample] for sample, source in enumerate(sources)]
        decided = ways.log(name) or [row.decided for row in rows]
        logs = [of_sample | row.steps for of_sample, row in zip(decided, rows, strict=True)]
        answers = self.answer_of(prompt, [row.tokens for row in rows], generation, logs)
        return [
            replace(answer, first_block=row.first_block, same_as=None if source == name else source)
            for answer, row, source in zip(answers, rows, sources, strict=True)
        ]


@dataclass(frozen=True)
class _Found:
    """What came of one row."""

    tokens: NewTokens
    decided: dict[str, Any]  # by its edits
    steps: dict[str, list[Any]]  # logged by its steps on the scores
    first_block: int


def check_variants(variants: Mapping[str, Method], options: RunOptions) -> None:
    """Refuses variants that cannot be computed together.

    Raises:
        OptionError: No variant, a method that makes its own inputs, or a trace.
    """
    if not variants:
        raise OptionError("No variant is given. Name at least one method.")
    for name, method in variants.items():
        if method.makes_inputs:
            raise OptionError(
                f"'{name}' ({type(method).__name__}) answers inputs of its own, so it shares no pass with other "
                "variants. Run it alone."
            )
    if options.trace is not None:
        raise OptionError(f"trace={options.trace} is for one method. Write down the answers' logs instead.")
