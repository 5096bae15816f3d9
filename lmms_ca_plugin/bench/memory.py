"""The peak of what a call allocates, in bytes that PyTorch's own allocators hand out.

On a GPU it is `torch.cuda.max_memory_allocated` after a reset. On a CPU there is no such counter, and the process's
resident size would count freed pages, Python and the image library, and never go down. So the call runs once under
`torch.profiler` with `profile_memory`, whose records are every allocation and release of the CPU allocator, scratch
space inside kernels included; their running sum has a peak. Both numbers are thus of one kind: live bytes of PyTorch's
allocator, seen from inside. Scratch space that a math library takes on its own is in neither.
The profiler slows what it watches, so memory is measured in passes of its own, never in timed ones.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

ALLOCATION = "[memory]"  # the profiler's name for an allocation (positive bytes) or a release (negative)


@dataclass(frozen=True)
class Peak:
    """How much memory a call needed.

    Attributes:
        before: Bytes that were held when it began: the weights.
        working: Bytes that it held beyond them at its peak.
    """

    before: int
    working: int

    @property
    def total(self) -> int:
        """Bytes at the peak, the weights included."""
        return self.before + self.working


def peak_of(call: Callable[[], object], device: torch.device, held: int) -> Peak:
    """Runs a call and measures its peak.

    Args:
        call: What is measured; on a GPU it should have run once before, so that libraries hold their workspaces.
        device: Where it allocates.
        held: Bytes of the weights, for a CPU; a GPU's allocator knows what it holds.

    Returns:
        The peak.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return Peak(before, torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = profiler.profiler.kineto_results
    records = [e for e in results.events() if e.name() == ALLOCATION and e.device_type().name == "CPU"]
    records.sort(key=lambda record: record.start_ns())
    return Peak(held, max(accumulate((record.nbytes() for record in records), initial=0)))
