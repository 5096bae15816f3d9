"""How many branches pass together: memory that a batch needs, from the model's shapes, beside memory that may be used.

Rule: what may be used is measured once, beside the loaded weights: 90 % of what GPUs have left, half of a computer's
memory. What is needed is counted, not tried: the baseline's keys and values, the states at which branches leave it, the
keys and values that branches own, and what the modules of one block hold at a time for every row that passes it. The
last is an upper bound for a block of attention and a gated MLP; `tests/engine/test_budget.py` measures both.
Pictures and the vision tower come before and are not counted.

Axis letters: b samples, s prompt positions, L blocks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lmms_ca_plugin.devices import local_processes
from lmms_ca_plugin.errors import MemoryLimitError, OptionError
from lmms_ca_plugin.families._contract import Family, Trunk
from lmms_ca_plugin.methods._contract import Plan

GIB = 2**30
# Positions that pass a block at a time: more make a GPU hardly faster, and a computer slower, whose caches they leave.
POSITIONS_TOGETHER = {"cuda": 16384, "cpu": 2048}
POSITIONS_TOGETHER_ELSEWHERE = 2048  # on devices that nobody measured, e.g. mps: the careful number
SHARE_OF_GPU = 0.9
SHARE_OF_COMPUTER = 0.5
SHARE_OF_PASS = 0.25  # of what may be used, for what passes a block; the rest is for what stays


def measured(blocks: Mapping[torch.device, int]) -> int:
    """Measures how many bytes may be used beside weights that are loaded already.

    Args:
        blocks: How many blocks each device holds; what a block keeps lies where the block does.

    Returns:
        Bytes over all GPUs, as far as each has room for its blocks' part; without a GPU, the computer's, of which each
        of several processes gets its part.
    """
    if any(device.type != "cuda" for device in blocks):
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(SHARE_OF_COMPUTER * installed) // local_processes()
    return int(SHARE_OF_GPU * min(_unused(device) * sum(blocks.values()) / held for device, held in blocks.items()))


def _unused(device: torch.device) -> int:
    free, _total = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@dataclass(frozen=True)
class Batch:
    """What a batch's memory depends on, in bytes.

    Attributes:
        trunk: The language model's shapes.
        itemsize: Bytes of a number.
        samples: b.
        positions: s.
        new_tokens: The most that are generated.
    """

    trunk: Trunk
    itemsize: int
    samples: int
    positions: int
    new_tokens: int

    @property
    def _cached(self) -> int:
        """Keys and values of one position in one block."""
        return 2 * self.trunk.num_key_value_heads * self.trunk.head_size * self.itemsize

    @property
    def _passing(self) -> int:
        """What one row's prompt holds at a time while it passes a block."""
        trunk = self.trunk
        heads = (trunk.num_heads + 2 * trunk.num_key_value_heads) * trunk.head_size
        numbers = 4 * trunk.hidden_size + max(3 * heads, 3 * trunk.mlp_size)
        precise = 2 * trunk.hidden_size * 8  # a norm computes in float32 at the least
        mask = self.positions * (1 + 2 * self.itemsize)  # allowed, biases, and both together
        return self.positions * (numbers * self.itemsize + precise + mask)

    def row(self, first_block: int) -> int:
        """What a branch of one sample keeps that leaves the baseline at a block, and its scores."""
        own = (self.trunk.num_blocks - first_block) * self.positions
        return (own + self.trunk.num_blocks * self.new_tokens) * self._cached + 3 * 8 * self.trunk.vocabulary

    def together(self, device: torch.device, available: int) -> int:
        """How many branches' prompts pass a block at a time: at least as many as the baseline's."""
        useful = POSITIONS_TOGETHER.get(device.type, POSITIONS_TOGETHER_ELSEWHERE) // self.positions
        return max(self.samples, min(useful, int(SHARE_OF_PASS * available) // self._passing))

    def shared(self, first_blocks: Sequence[int]) -> int:
        """What the baseline takes, once for all branches, the states included at which they leave it."""
        kept = max(first_blocks) * self.positions * self._cached
        states = len(set(first_blocks)) * self.positions * self.trunk.hidden_size * self.itemsize
        return self.samples * (kept + states)

    def groups(self, first_blocks: Mapping[str, int], together: int, available: int) -> list[list[str]]:
        """Splits variants into groups whose branches fit together, all samples of the batch in each.

        Args:
            first_blocks: For each variant the block at which it leaves the baseline.
            together: How many prompts pass a block at a time.
            available: Bytes that may be used.

        Returns:
            Names; in each group those that leave first come first.

        Raises:
            MemoryLimitError: Not even one branch of every sample fits beside the baseline.
        """
        names = sorted(first_blocks, key=lambda name: first_blocks[name])
        room = available - self.shared(list(first_blocks.values())) - together * self._passing
        groups: list[list[str]] = [[]]
        used = 0
        for name in names:
            needed = self.samples * self.row(first_blocks[name])
            if needed > room:
                raise MemoryLimitError(
                    f"{self.samples} question(s) with prompts of {self.positions} tokens and {self.new_tokens} new "
                    f"tokens need {(available - room + needed) / GIB:.3g} GiB beside the weights for '{name}' alone; "
                    f"{available / GIB:.3g} GiB may be used. Give more with memory_gib, take a smaller batch_size or "
                    "dtype, or ask for fewer new tokens."
                )
            if used + needed > room:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += needed
        return groups


def capacities(plans: Mapping[str, Plan], groups: Sequence[Sequence[str]], batch: Batch) -> list[int]:
    """Counts the positions that each block's shared cache must hold: the prompt's, and new ones of rows that share it.

    A variant whose edits turn out to change nothing shares all of the baseline's blocks, once for all such variants,
    unless a step on the scores tells them apart.
    """
    blocks, counted = batch.trunk.num_blocks, []
    for block in range(blocks):
        sharing = 0
        for group in groups:
            later = sum(plans[name].first_block(blocks) > block for name in group)
            edited = [plans[name] for name in group if plans[name].first_block(blocks) <= block]
            rescored = sum(plan.rescore is not None for plan in edited)
            sharing = max(sharing, later + rescored + (len(edited) > rescored))
        counted.append(batch.positions + batch.new_tokens * sharing)
    return counted


def budget_of(family: Family, memory_gib: float | None) -> int:
    """Says how many bytes may be used.

    Args:
        family: The loaded checkpoint.
        memory_gib: As the user gives it, in GiB beside the weights; None measures.

    Raises:
        OptionError: A number that is not above 0.
    """
    if memory_gib is None:
        return measured(Counter(next(block.parameters()).device for block in family.blocks))
    if not memory_gib > 0:
        raise OptionError(f"memory_gib={memory_gib} is not allowed. Allowed: above 0, or leave it out.")
    return int(memory_gib * GIB)
