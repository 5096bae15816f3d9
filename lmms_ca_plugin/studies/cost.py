"""What a study will cost, before it is run: counted from its plan, timed on a few questions."""

from __future__ import annotations

from dataclasses import dataclass

from lmms_ca_plugin.engine.selfcheck import complete
from lmms_ca_plugin.harness.answering import Probed
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.studies.sweep import Planned


@dataclass(frozen=True)
class Cost:
    """A study's cost.

    Attributes:
        questions: Documents of all tasks.
        variants: Answers to each.
        passes: Passes of a prompt through a block, per question, as branches.
        passes_alone: The same, with every variant in a run of its own.
        makes_inputs: Variants whose own passes, by which they make their inputs, are not among them.
        memory_gib: What branches may use beside the weights.
        device: On what it was timed.
        probed: The timed questions, in one process.
        processes: How many the study has.
    """

    questions: int
    variants: int
    passes: int
    passes_alone: int
    makes_inputs: tuple[str, ...]
    memory_gib: float
    device: str
    probed: Probed
    processes: int


def estimate(plan: Planned, questions: int) -> Cost:
    """Estimates a study's cost; loads the checkpoint and answers some questions under all variants.

    Args:
        plan: The study.
        questions: How many questions to time; at least a few batches tell something.

    Returns:
        The cost. Branches that decide the same are computed once, so `passes` is an upper bound where no variant makes
        inputs of its own.

    Raises:
        CheckpointError: The checkpoint cannot be used, or lacks what a method needs.
    """
    answering = Runner(plan.study).answering
    blocks = answering.found.trunk.num_blocks
    alone = tuple(name for name, method in answering.methods.items() if method.makes_inputs)
    shared_methods = [method for method in answering.methods.values() if not method.makes_inputs]
    # Completed, because a plan that needs to know the weights has no edit before, and would count as vanilla.
    plans = [complete(answering.family, method.plan(answering.found.trunk)) for method in shared_methods]
    firsts = [plan.first_block(blocks) for plan in plans]
    shared = max(firsts, default=0) + sum(blocks - first for first in firsts)
    probed = answering.probed(questions)
    return Cost(
        questions=probed.all_questions,
        variants=len(answering.methods),
        passes=shared + len(alone) * blocks,
        passes_alone=len(answering.methods) * blocks,
        makes_inputs=alone,
        memory_gib=answering.memory_gib,
        device=str(answering.family.model.device),
        probed=probed,
        processes=plan.study.processes,
    )
