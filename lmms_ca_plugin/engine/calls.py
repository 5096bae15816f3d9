"""How the rows of a pass attend in one block: neighbours that attend alike are one call.

Axis letters: r rows, k positions so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from lmms_ca_plugin.attention import AttentionCall, Bias
from lmms_ca_plugin.engine.part import Part

Placed = Sequence[tuple[Part, slice]]


def calls_of(
    placed: Placed, block: int, attention_mask: Tensor, in_prefill: bool
) -> Iterator[tuple[AttentionCall, Part | None]]:
    """Makes the calls of rows that attend to keys of their own.

    Args:
        placed: The parts, each with its rows, one after the other.
        block: The block.
        attention_mask: (r, k) bool, True at real tokens, over the positions so far and these.
        in_prefill: Whether this is the prompt's pass.

    Yields:
        A call, and the part whose wish it is; None where several share it.
    """
    for is_plain, group in groupby(placed, lambda of: of[0].attends_plainly(block, in_prefill)):
        members = list(group)
        if is_plain:
            rows = _from_to([rows for _part, rows in members])
            yield AttentionCall(attention_mask[rows], rows), None
            continue
        calls = [(part.call(block, attention_mask[rows], rows, in_prefill), part) for part, rows in members]
        # In the prompt's pass each takes a mask of (r, q, k) with it, so that they had better come one by one.
        yield from calls if in_prefill else _joined([call for call, _part in calls])


def _joined(calls: Sequence[AttentionCall]) -> Iterator[tuple[AttentionCall, None]]:
    """Joins neighbours that differ in the values of their biases alone."""
    for alike, group in groupby(calls, lambda call: call.reweighting is None):
        members = list(group)
        biases = [call.bias.keys for call in members if call.bias is not None]
        if not alike or len(members) == 1:
            yield from ((call, None) for call in members)
            continue
        rows = _from_to([call.rows for call in members])
        yield (
            AttentionCall(torch.cat([call.attention_mask for call in members]), rows, bias=Bias(torch.cat(biases))),
            None,
        )


def _from_to(rows: Sequence[slice]) -> slice:
    return slice(rows[0].start, rows[-1].stop)
