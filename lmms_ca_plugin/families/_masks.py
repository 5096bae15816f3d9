"""The attention mask of a pass, by transformers' own mask function.

Axis letters: b rows, q positions of this pass, k positions so far, e hidden size.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from lmms_ca_plugin.families._spelling import CACHE


@dataclass(frozen=True)
class _Before:
    """What the mask function asks of a cache: how many positions came before."""

    positions: int
    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self.positions

    def get_query_offset(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self.positions

    def get_mask_sizes(self, query: int | Tensor, layer_idx: int) -> tuple[int, int]:  # noqa: ARG002
        q = query if isinstance(query, int) else len(query)  # in 4.57 a tensor of positions
        return self.positions + q, 0


def causal_mask(config: Any, states: Tensor, attention_mask: Tensor) -> Tensor | None:
    """Builds what the kernel named in the config takes for the last q of k positions.

    Args:
        config: The trunk's text config.
        states: (b, q, e), the positions about to pass the blocks.
        attention_mask: (b, k) bool, True at real tokens, over the positions so far and these.

    Returns:
        E.g. (b, 1, q, k) bool, or None where a plain causal mask will do.
    """
    accepted = _accepted()
    seen = attention_mask.shape[1] - states.shape[1]
    offered = {
        "config": config,
        "inputs_embeds": states,
        "input_embeds": states,
        "attention_mask": attention_mask,
        "cache_position": torch.arange(seen, attention_mask.shape[1], device=states.device),
        CACHE: _Before(seen),
    }
    mask: Tensor | None = create_causal_mask(**{k: v for k, v in offered.items() if k in accepted})
    return mask


@cache
def _accepted() -> frozenset[str]:
    """What transformers' mask function takes: 4.57 says `input_embeds` and asks for `cache_position`, 5.x does not."""
    return frozenset(inspect.signature(create_causal_mask).parameters)
