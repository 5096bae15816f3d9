"""Branches of a batch in flight: each row passes the blocks from where it leaves the baseline, and all decode together.

The prompts pass a few rows at a time, through all their blocks, because more at once make nothing faster and hold more;
then one pass per new token reads the weights once for all rows.

Axis letters: r rows, s prompt positions, q positions of this pass, e hidden size, v vocabulary.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmms_ca_plugin.attention import Call
from lmms_ca_plugin.engine.branch_cache import BranchCache, Group
from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.engine.flight import Flight, Step
from lmms_ca_plugin.engine.part import Part
from lmms_ca_plugin.engine.shared import Shared
from lmms_ca_plugin.families._contract import Family


class Branches(Flight):
    """Rows that leave the baseline of one batch at one block or another.

    Args:
        family: The loaded checkpoint.
        shared: The baseline; its cache has room for the new tokens of all rows that share it.
        parts: The rows, sorted by the block at which they leave it.
        new_tokens: The most tokens that will be generated.
        together: How many rows' prompts pass at a time; a part always passes whole.
    """

    def __init__(self, family: Family, shared: Shared, parts: Sequence[Part], new_tokens: int, together: int) -> None:
        attention_mask, blocks = shared.prompt.attention_mask, family.trunk.num_blocks
        samples = [sample for part in parts for sample in part.samples or range(len(attention_mask))]
        entries = [part.first_block for part in parts for _row in range(len(part))]
        owners = [bisect_right(entries, block) for block in range(blocks)]
        groups = {n: Group.of(n, samples[n:], attention_mask, new_tokens) for n in set(owners) if n < len(samples)}
        own = KeyValueCache([attention_mask.shape[1] + new_tokens] * blocks)
        shared.cache.rewind(attention_mask.shape[1])
        self._branch_cache = BranchCache(own, shared.cache, owners, groups)
        self._together = together
        super().__init__(family, shared.prompt, parts, shared.entering, self._branch_cache, new_tokens)

    def pass_prompts(self) -> Tensor:
        """Passes the prompts, a few rows at a time: states (r, 1, e) behind the last block."""
        states = [
            Flight(
                self.family, self.prompt, parts, self._entering, self._branch_cache.of_rows(first), 0
            ).pass_prompts()[:, -1:]
            for first, parts in self._few()
        ]
        return torch.cat(states)

    def _few(self) -> Iterator[tuple[int, list[Part]]]:
        """Splits the parts: the first row of each few, and the parts."""
        few: list[Part] = []
        first = rows = 0
        for part in self.parts:
            if few and rows + len(part) > self._together:
                yield first, few
                few, first, rows = [], first + rows, 0
            few.append(part)
            rows += len(part)
        yield first, few

    def _shared_calls(self, block: int, step: Step) -> Sequence[Call]:
        return () if step.prefill else self._branch_cache.shared_calls(block)
