"""What a study will cost, before it is run: counted from its plan, timed on a few questions."""

from __future__ import annotations

from dataclasses import dataclass

from lmms_ca_plugin.harness.study import Probed, Runner
from lmms_ca_plugin.studies.sweep import Planned


@dataclass(frozen=True)
class Cost:
    """A study's cost.

    Attributes:
        questions: Documents of all tasks.
        variants: Answers to each.
        passes: Passes of a prompt through a block, per question, as branches.
        passes_alone: The same, with every variant in a run of its own.
        memory_gib: What branches may use beside the weights.
        device: On what it was timed.
        probed: The timed questions.
    """

    questions: int
    variants: int
    passes: int
    passes_alone: int
    memory_gib: float
    device: str
    probed: Probed


def estimate(plan: Planned, questions: int) -> Cost:
    """Estimates a study's cost; loads the checkpoint and answers some questions under all variants.

    Args:
        plan: The study.
        questions: How many questions to time; at least a few batches tell something.

    Returns:
        The cost. Branches that decide the same are computed once, so `passes` is an upper bound.

    Raises:
        CheckpointError: The checkpoint cannot be used.
    """
    runner = Runner(plan.study)
    blocks = runner.found.trunk.num_blocks
    firsts, alone = [], 0
    for method in runner.methods.values():
        if method.makes_inputs:
            alone += 1
        else:
            firsts.append(method.plan(runner.found.trunk).first_block(blocks))
    shared = max(firsts, default=0) + sum(blocks - first for first in firsts)
    probed = runner.probed(questions)
    return Cost(
        questions=probed.all_questions,
        variants=len(runner.methods),
        passes=shared + alone * blocks,
        passes_alone=len(runner.methods) * blocks,
        memory_gib=runner.memory_gib,
        device=str(runner.family.model.device),
        probed=probed,
    )
