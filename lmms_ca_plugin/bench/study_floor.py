"""How few operations a study of many variants can do, beside one baseline run and beside the variants one by one.

Rule: as in `bench/floor.py`; padding is not counted. A picture passes the vision tower once; the baseline passes the
blocks below the highest at which a variant leaves it; every branch that differs passes the blocks from where it leaves,
and decodes its own tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmms_ca_plugin.bench.floor import Work, decoding_work, picture_work, prompt_work
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.families._contract import Family


@dataclass(frozen=True)
class StudyFloor:
    """The least work of a study's batches.

    Attributes:
        vanilla: One baseline run.
        one_by_one: All variants, each in a run of its own.
        together: All variants as branches.
    """

    vanilla: Work
    one_by_one: Work
    together: Work

    @property
    def baseline_runs(self) -> float:
        """The operations of all variants together, in baseline runs."""
        return self.together.operations / self.vanilla.operations

    @property
    def share(self) -> float:
        """The operations of all variants together over those of the variants one by one."""
        return self.together.operations / self.one_by_one.operations


def study_floor(
    family: Family, answers: Mapping[str, Sequence[Answer]], first_blocks: Mapping[str, int], new_tokens: int
) -> StudyFloor:
    """Counts what was answered together.

    Args:
        family: The loaded checkpoint, a LLaVA-1.5; one picture per question.
        answers: For every variant the answers to the same questions; they say which branches were one.
        first_blocks: For every variant the block at which it leaves the baseline.
        new_tokens: New tokens of each answer.
    """
    vanilla, one_by_one, together = Work(), Work(), Work()
    top = max(first_blocks.values())
    for of_sample in zip(*answers.values(), strict=True):
        prompt = of_sample[0].prompt_tokens
        alone = picture_work(family) + prompt_work(family, prompt) + decoding_work(family, prompt, new_tokens)
        vanilla += alone
        together += picture_work(family) + prompt_work(family, prompt) - prompt_work(family, prompt, top)
        for answer in of_sample:
            one_by_one += alone
            if answer.same_as is None:
                together += prompt_work(family, prompt, answer.first_block)
                together += decoding_work(family, prompt, new_tokens)
    return StudyFloor(vanilla, one_by_one, together)
