"""One batch under one plan, from its prompts on: a flight of one part.

Axis letters: b samples, s prompt positions, n new tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.engine.flight import Flight, Step
from lmms_ca_plugin.engine.generation import NewTokens
from lmms_ca_plugin.engine.part import Part
from lmms_ca_plugin.families._contract import Family, Prompt
from lmms_ca_plugin.methods._contract import Plan, Read


class Run(Flight):
    """A batch in flight under a plan.

    Args:
        family: The loaded checkpoint.
        plan: What the method reads and edits.
        prompt: The batch.
        new_tokens: The most tokens that will be generated; the caller has checked that they fit the trunk's positions.
        cache: Where keys and values go; None makes one for prompt and new tokens.
    """

    cache: KeyValueCache

    def __init__(
        self, family: Family, plan: Plan, prompt: Prompt, new_tokens: int, cache: KeyValueCache | None = None
    ) -> None:
        self.plan = plan
        self.part = Part(plan, prompt)
        if cache is None:
            cache = KeyValueCache([prompt.states.shape[1] + new_tokens] * family.trunk.num_blocks)
        super().__init__(family, prompt, [self.part], {0: prompt.states}, cache, new_tokens)

    def begin(self) -> Step:
        """Prepares the prompt's pass."""
        return self.prompt_step(self.prompt.states)

    @property
    def reads(self) -> dict[Read, Tensor]:
        """What has been read."""
        return self.part.reads

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per sample: what the edits decided, or what was observed; dicts are joined over the edits."""
        return self.part.log if self.plan.observe is None else list(self.plan.observe(self.reads, self.prompt))

    def step_log(self, answers: Sequence[NewTokens]) -> list[dict[str, list[Any]]]:
        """One record per sample: what `rescore` logged for each token of its answer, the end token included."""
        return self.part.step_log(answers)

    def expand(self, times: int) -> None:
        """Repeats every sample `times` times, side by side, for beams; decisions go along."""
        self.cache.expand(times)
        self.part.expand(times)
        self.generated = self.generated.repeat_interleave(times, 0)
        self._attention_mask = self._attention_mask.repeat_interleave(times, 0)
        self._positions = self._positions.repeat_interleave(times, 0)
