"""Proof at load, on the real model, that a plan does what it says: an identity changes nothing, a real change bites.

Source of the idea: Butanium/nnterp `rename_utils.py` (`check_source`): a model whose hooks have no effect is refused.
Rule: all identities of states together must leave the logits as they are, and those of attention together up to
rounding, which an explicit mask brings; then each edit alone,
at full strength, must change what its block puts out. A change of the scores is proven in the prompt's pass and in a
decoding step.
The same small prompt serves a plan that has to know the loaded weights (`Plan.probe`).

Axis letters: b samples, s prompt positions, r edited queries, v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._contract import Family, Message, Prompt, Question
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read, Reads, Scores


def small_prompt(family: Family) -> Prompt:
    """Makes the prompt that a checkpoint is tried on: one picture, one question.

    Raises:
        CheckpointError: No image token is found in it.
    """
    picture = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    question = Question("self-check", "none", 0, lambda: (Message("user", "What is this?", (picture,)),))
    with torch.inference_mode():
        prompt = replace(family.embed(family.encode([question])), seeds=(0,))
    if not prompt.is_image.any():
        raise CheckpointError(
            "Self-check: a prompt with a picture has no image token. Processor and checkpoint do not fit."
        )
    return prompt


def complete(family: Family, plan: Plan) -> Plan:
    """Makes a plan that needs to know the loaded weights complete.

    Args:
        family: The loaded checkpoint.
        plan: As declared from the trunk's facts.

    Returns:
        The plan that is run; `plan` itself if it has no probe.

    Raises:
        CheckpointError: The checkpoint lacks what the method needs.
    """
    if plan.probe is None:
        return plan
    run = Run(family, Plan(reads=plan.probe.reads), small_prompt(family), new_tokens=1)
    with run.attached():
        run.prefill()
    return plan.probe.complete(run.reads)


def self_check(family: Family, *plans: Plan) -> None:
    """Tries the mechanisms of plans on one small prompt, each place that is edited once, however many plans edit it.

    Args:
        family: The loaded checkpoint.
        plans: What will be run; without edits, a residual edit of the middle block is tried.

    Raises:
        CheckpointError: No image token is found; logits, or a method's scores, are not numbers; the last block puts out
            something else for the last position alone; an identity changes logits, or an edit does not.
    """
    prompt = small_prompt(family)
    # Thrown away. On two cores of a CPU, in about one process of ten, the very first pass had cosines of the rotary
    # embedding that were off by 1e-4, and no later one; where that comes from is not known.
    _scores(family, Plan(), prompt)
    before = _scores(family, Plan(), prompt)
    if not before.isfinite().all():
        raise CheckpointError(
            f"Self-check: the logits are not finite in {before.dtype}. Try dtype=bfloat16 or float32."
        )
    whole = _scores(family, Plan(), prompt, whole=True)
    if not _close(before, whole, at_most=0.05):
        raise CheckpointError(
            "Self-check: for the last position alone the last block puts out something else than for all of them: "
            f"logits up to {before.abs().max():.3g} differ by {(before - whole).abs().max():.3g}. "
            f"What families/{family.trunk.model_type}.py names in `narrow` does not fit this checkpoint."
        )
    edits = {(edit.block, edit.site): edit for plan in plans for edit in plan.edits}.values() or [
        Edit(family.trunk.num_blocks // 2, "residual", _OnImage(1.0, 1.0))
    ]
    for together in ([e for e in edits if not e.on_attention], [e for e in edits if e.on_attention]):
        if not _unchanged(family, together, prompt, before):
            wrong = [edit for edit in together if not _unchanged(family, [edit], prompt, before)] or together
            raise CheckpointError(
                f"Self-check: {_name(wrong[0])} that should change nothing changes the logits. Report it as a bug."
            )
    _check_bites(family, tuple(edits), prompt)
    for plan in plans:
        if plan.rescore is not None:
            _check_rescore(family, plan, prompt, before)


# ---- edits -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _OnImage:
    """Decides the same value for every image token."""

    value: float
    neutral: float

    def __call__(self, reads: Reads, prompt: Prompt) -> Decision:  # noqa: ARG002
        values = torch.full(
            prompt.kinds.shape, self.neutral, device=prompt.kinds.device, dtype=prompt.states.dtype
        )  # (b, s)
        return Decision(values.masked_fill(prompt.is_image, self.value), ({},) * len(prompt.kinds))


def _biased(weights: Tensor, values: Tensor) -> Tensor:
    return weights * values[:, None, None].to(weights).exp()  # (b, h, r, k)


def _with(edit: Edit, value: float) -> Edit:
    reweigh = _biased if edit.site == "weights" else None
    return replace(edit, decide=_OnImage(value, edit.neutral), reweigh=reweigh)


def _name(edit: Edit) -> str:
    return f"an edit at block {edit.block}, site {edit.site},"


def _unchanged(family: Family, edits: Sequence[Edit], prompt: Prompt, before: Tensor) -> bool:
    if not edits:
        return True
    after = _scores(family, Plan(edits=tuple(_with(edit, edit.neutral) for edit in edits)), prompt)
    if any(edit.on_attention for edit in edits):
        return _close(before, after)  # an explicit mask switches the kernel
    return torch.equal(before, after)


def _close(before: Tensor, after: Tensor, at_most: float = 0.25) -> bool:
    """Whether scores are equal up to rounding, relative to the largest: 1e-5 in float32, `at_most` in few bits."""
    eps = torch.finfo(before.dtype).eps
    if before.dtype == torch.float32 and before.device.type == "cuda":
        # A GPU sums in another order for another shape, and TF32, where it is on, has 10 bits.
        eps = 2**-10 if torch.backends.cuda.matmul.allow_tf32 else 10 * eps
    tolerance = min(100 * eps, at_most)
    return bool((before - after).abs().max() <= tolerance * before.abs().max())


def _check_bites(family: Family, edits: Sequence[Edit], prompt: Prompt) -> None:
    """Passes the prompt once, and every edited block a second time under its edit, from the same states."""
    plain = Run(family, Plan(), prompt, new_tokens=1)
    with plain.attached():
        states, step = prompt.states, plain.begin()
        for block in range(family.trunk.num_blocks):
            after = plain.run_blocks(block, block + 1, states, step)
            for edit in (edit for edit in edits if edit.block == block):
                strong = -math.inf if edit.on_attention else 0.0
                edited = Run(family, Plan(edits=(_with(edit, strong),)), prompt, new_tokens=1)
                bitten = edited.run_blocks(block, block + 1, states, edited.begin())
                # An edit of what is added after the block reaches image positions alone.
                seen = slice(None) if edit.site == "added" else slice(-1, None)
                if torch.equal(family.logits(after[:, seen]), family.logits(bitten[:, seen])):
                    raise CheckpointError(
                        f"Self-check: {_name(edit)} at full strength changes no logit. It does not reach the model."
                    )
            states = after


# ---- scores ----------------------------------------------------------------------------------------------------------
def _same(logits: Tensor, reads: Reads, generated: Tensor, family: Family) -> Scores:  # noqa: ARG001
    return Scores(logits, ({},) * len(logits))


@dataclass(frozen=True)
class _MinusReads:
    """Subtracts the logits of all states that were read: without a read, or with a stale one, it is another result."""

    reads: tuple[Read, ...]

    def __call__(self, logits: Tensor, reads: Reads, generated: Tensor, family: Family) -> Scores:  # noqa: ARG002
        early = [family.logits(reads[read]) for read in self.reads if read.kind == "hidden" and read.rows == "last"]
        return Scores(-logits - sum(early, torch.zeros_like(logits)), ({},) * len(logits))


def _check_rescore(family: Family, plan: Plan, prompt: Prompt, before: Tensor) -> None:
    if not torch.equal(before, _scores(family, replace(plan, edits=(), rescore=_same), prompt)):
        raise CheckpointError(
            "Self-check: a step on the logits that should change nothing changes them. Report it as a bug."
        )
    after = _scores(family, replace(plan, edits=(), rescore=_MinusReads(plan.reads)), prompt)
    unchanged = (before == after).all(-1)  # (2,)
    if unchanged.any():
        which = ("the first new token", "the second new token")[int(unchanged.long().argmax())]
        raise CheckpointError(
            f"Self-check: a step on the logits at full strength changes none of {which}. It does not reach the model."
        )
    values = _scores(family, plan, prompt)
    if values.isnan().any() or not values.isfinite().any(-1).all():
        raise CheckpointError(
            f"Self-check: the method's scores are not numbers in {before.dtype}. Try dtype=bfloat16 or float32."
        )


def _scores(family: Family, plan: Plan, prompt: Prompt, whole: bool = False) -> Tensor:
    """Scores of the first new token and, with the last prompt token once more in its place, of the second: (2, v)."""
    run = Run(family, plan, prompt, new_tokens=2)
    run.whole = whole
    with run.attached():
        first = run.prefill()
        second = run.step(prompt.input_ids[:, -1])
        return torch.cat([first, second])
