"""Devices: by name, refused at once where PyTorch does not have it; what they are called; and when they are done."""

from __future__ import annotations

import os
import platform

import torch

from lmms_ca_plugin.errors import OptionError

LOCAL_PROCESSES = "LOCAL_WORLD_SIZE"
"""The variable by which launchers tell how many processes of a run share a computer (torchrun, accelerate)."""


def device_named(name: str) -> torch.device:
    """Finds a device.

    Args:
        name: As PyTorch writes it, e.g. `cpu`, `cuda` or `cuda:1`.

    Returns:
        The device.

    Raises:
        OptionError: PyTorch knows no such name, or finds no such GPU.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"device={name} is no device of PyTorch. Allowed: cpu, cuda, cuda:<n>, ...") from error
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise OptionError(f"device={name}: PyTorch finds {found} GPUs here. Take device=cpu, or another machine.")
    return device


def title_of(device: torch.device) -> str:
    """Names the GPU, or the processor, as its maker does where the system says it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done what it was given; a CPU has when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def local_processes() -> int:
    """Counts the processes of this run that share this computer."""
    return int(os.environ.get(LOCAL_PROCESSES, "1"))


def cores() -> int:
    """Counts the cores that this process may keep busy: its part of those that the run may use on this computer."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // local_processes())
