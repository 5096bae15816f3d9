"""Times two ways to do the same, one right after the other, and measures what they allocate.

Rule: nothing is compared across pairs. Which of a pair comes first is drawn, and the ways take turns in an order drawn
anew each time, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lmms_ca_plugin.bench.memory import Peak, peak_of
from lmms_ca_plugin.devices import wait_for
from lmms_ca_plugin.errors import OptionError

Call = Callable[[], object]
MEMORY_PASSES = 2  # allocations repeat to the byte; the second pass shows it


@dataclass(frozen=True)
class Pair:
    """The same work done in two ways, one right after the other.

    Attributes:
        base: Seconds of the way that others are measured against.
        own: Seconds of the other.
        base_first: Which came first.
    """

    base: float
    own: float
    base_first: bool

    @property
    def ratio(self) -> float:
        """Time relative to the base."""
        return self.own / self.base


def at_least_one(options: object, *names: str) -> None:
    """Refuses counts of a bench's options that are below 1.

    Raises:
        OptionError: One of them is.
    """
    for name in names:
        if getattr(options, name) < 1:
            raise OptionError(f"{name}={getattr(options, name)} is not allowed. Allowed: 1 and more.")


def in_pairs(
    base: Call, others: Sequence[Call], device: torch.device, pairs: int, seed: int, tick: Callable[[int], object]
) -> list[list[Pair]]:
    """Times every other way against the base; all should have run once before.

    Args:
        base: What is measured against.
        others: What is measured.
        device: Where they compute.
        pairs: Pairs of each.
        seed: Of the orders.
        tick: Told how many runs have been made.

    Returns:
        The pairs of each, in the order they were run.
    """
    chance = random.Random(seed)
    found: list[list[Pair]] = [[] for _ in others]
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()  # what is there by now is no garbage; looking through it would fall on whoever makes the most objects
    try:
        for _ in range(pairs):
            for index in chance.sample(range(len(others)), len(others)):
                base_first = chance.random() < 0.5
                order = (base, others[index]) if base_first else (others[index], base)
                first, second = (seconds(call, device) for call in order)
                found[index].append(Pair(*((first, second) if base_first else (second, first)), base_first))
                tick(2)
    finally:
        if not frozen:
            gc.unfreeze()
    return found


def seconds(call: Call, device: torch.device) -> float:
    """Times a call until the device has done all of it."""
    gc.collect()
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def peaks(call: Call, device: torch.device, held: int, tick: Callable[[int], object]) -> tuple[Peak, ...]:
    """Measures a call's peak memory in passes of its own, which also warm it up."""
    if device.type == "cuda":
        call()  # libraries take their workspaces, and keep them
    found = []
    for _ in range(MEMORY_PASSES):
        found.append(peak_of(call, device, held))
        tick(1)
    return tuple(found)
