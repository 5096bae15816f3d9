"""Proof at load, on the real model, that edits do what they say: an identity edit changes nothing, a real one bites.

Source of the idea: Butanium/nnterp `rename_utils.py` (`check_source`): a model whose hooks have no effect is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._contract import Family, Message, Prompt, Question
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Reads


def self_check(family: Family, plan: Plan) -> None:
    """Runs one small prompt as it is, under each edit's identity, and under each edit at full strength.

    Args:
        family: The loaded checkpoint.
        plan: What will be run; without edits, a residual edit of the middle block is tried.

    Raises:
        CheckpointError: No image token is found, logits are not numbers, an identity changes them, or an edit does not.
    """
    picture = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    question = Question("self-check", "none", 0, lambda: (Message("user", "What is this?", (picture,)),))
    with torch.inference_mode():
        prompt = replace(family.embed(family.encode([question])), seeds=(0,))
    if not prompt.is_image.any():
        raise CheckpointError(
            "Self-check: a prompt with a picture has no image token. Processor and checkpoint do not fit."
        )
    before = _logits(family, Plan(), prompt)
    if not before.isfinite().all():
        raise CheckpointError(
            f"Self-check: the logits are not finite in {before.dtype}. Try dtype=bfloat16 or float32."
        )
    for edit in plan.edits or (Edit(family.trunk.num_blocks // 2, "residual", _OnImage(1.0, 1.0)),):
        where = f"an edit at block {edit.block}, site {edit.site},"
        same = _logits(family, _only(edit, edit.neutral), prompt)
        if not (_close(before, same) if edit.site == "scores" else torch.equal(before, same)):
            raise CheckpointError(
                f"Self-check: {where} that should change nothing changes the logits. Report it as a bug."
            )
        strong = _logits(family, _only(edit, -math.inf if edit.site == "scores" else 0.0), prompt)
        if torch.equal(before, strong):
            raise CheckpointError(
                f"Self-check: {where} at full strength changes no logit. It does not reach the model."
            )


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


def _only(edit: Edit, value: float) -> Plan:
    return Plan(edits=(replace(edit, decide=_OnImage(value, edit.neutral)),))


def _logits(family: Family, plan: Plan, prompt: Prompt) -> Tensor:
    run = Run(family, plan, prompt, new_tokens=1)
    with run.attached():
        return run.prefill()


def _close(a: Tensor, b: Tensor) -> bool:
    # An explicit mask switches the kernel, so equality holds up to rounding: 1e-5 in float32, 1e-1 in bfloat16.
    tolerance = 100 * torch.finfo(a.dtype).eps
    return bool((a - b).abs().max() <= tolerance * a.abs().max())
