"""layermask: takes the image tokens away at one block, to see whether that block still needs them.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", section 3 (hidden states of the image tokens set to zero at
the input of one block).
Rule: at `mode=zero` the states of all image tokens, newlines included, are 0 when they enter block n, in the prefill;
what the model adds to them after n or later blocks is left out. `knockout` and `knockout_from` leave the states and
forbid attention instead: queries that are not image tokens do not see the image tokens, in block n or in n..L-1.
Deviates: nothing at `zero`. A zeroed key still takes softmax mass (its score is 0, not minus infinity), which the
paper's curve contains; the two knockouts are the clean control.

Axis letters: b samples, s prompt positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Prompt, Trunk
from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan, Reads


@dataclass(frozen=True)
class LayerMask(Method):
    """Layer masking of the image tokens.

    Attributes:
        layer: The block n, 0-based; there is no default. The entries `llava_layermask_L<n>` set it.
        mode: `zero` (the paper's), `knockout` (no attention to image tokens in block n), `knockout_from` (from n on).
    """

    layer: int | None = None
    mode: Literal["zero", "knockout", "knockout_from"] = "zero"

    def plan(self, trunk: Trunk) -> Plan:
        """Edits block n, or from n on.

        Raises:
            OptionError: No block is named, or the checkpoint does not have it.
        """
        last = trunk.num_blocks - 1
        if self.layer is None:
            raise OptionError(
                f"layermask masks one block: give layer=n (0 to {last}), or take the entry llava_layermask_L<n>."
            )
        trunk.check_blocks("layer", (self.layer,))
        if self.mode == "zero":
            added = (block for block in trunk.added_after if block >= self.layer)
            zeros = Edit(self.layer, "residual", self._factors)
            return Plan(edits=(zeros, *(Edit(block, "added", self._factors) for block in added)))
        blocks = range(self.layer, self.layer + 1 if self.mode == "knockout" else trunk.num_blocks)
        return Plan(edits=tuple(Edit(block, "scores", self._biases) for block in blocks))

    def _factors(self, reads: Reads, prompt: Prompt) -> Decision:  # noqa: ARG002
        return self._on_image(prompt, 1.0, 0.0)

    def _biases(self, reads: Reads, prompt: Prompt) -> Decision:  # noqa: ARG002
        return self._on_image(prompt, 0.0, -math.inf)

    def _on_image(self, prompt: Prompt, elsewhere: float, there: float) -> Decision:
        values = torch.full(prompt.kinds.shape, elsewhere, device=prompt.kinds.device, dtype=prompt.states.dtype)
        log = tuple({"layer": self.layer, "masked_tokens": n} for n in prompt.is_image.sum(-1).tolist())
        return Decision(values.masked_fill(prompt.is_image, there), log)  # (b, s)


METHOD = LayerMask
