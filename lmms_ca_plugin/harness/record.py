"""The record of a run: every setting with its resolved value, and the versions of what computed it."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import distributed

from lmms_ca_plugin.engine.budget import GIB
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.engine.requests import RunOptions
from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.methods._contract import Method, Plan

PACKAGES = {"plugin": "lmms-ca", "lmms_eval": "lmms-eval", "transformers": "transformers", "torch": "torch"}


def run_record(
    family: Family,
    entry: str,
    method: Method,
    plan: Plan,
    options: RunOptions,
    checkpoint: CheckpointOptions,
    weights: str | None,
) -> dict[str, Any]:
    """Describes a run so that it can be run again.

    Args:
        family: The loaded checkpoint.
        entry: The entry's name without its prefix.
        method: The method.
        plan: What it does on this checkpoint.
        options: How the run is carried out.
        checkpoint: What it was loaded from.
        weights: Their digest (`weights_of`).

    Returns:
        A JSON-able dict; `commit` is None where the checkpoint is a local folder.
    """
    model = family.model
    return {
        "entry": entry,
        "pretrained": checkpoint.pretrained,
        "revision": checkpoint.revision,
        "parameters": method.describe(plan),
        "seed": options.seed,
        "batch_size": options.batch_size,
        **asdict(family.inputs),
        "repetition_penalty": family.repetition_penalty,
        "model_type": family.trunk.model_type,
        "commit": getattr(model.config, "_commit_hash", None),
        "weights": weights,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_of(family),
        "attn_implementation": family.text_config._attn_implementation,
        "versions": versions(),
    }


def device_of(family: Family) -> str:
    """Names what a checkpoint is held on: every GPU, or `cpu`."""
    return " + ".join(map(torch.cuda.get_device_name, _gpus(family))) or "cpu"


def versions() -> dict[str, str]:
    """Lists the versions of what computes answers, by name."""
    return {name: version(package) for name, package in PACKAGES.items()}


def weights_of(checkpoint: CheckpointOptions) -> str | None:
    """Digests a checkpoint that could be loaded; None where its weights' format tells them from no others."""
    try:
        return checkpoint_sha(checkpoint)
    except CheckpointError:
        return None


def cost(family: Family, seconds: float) -> dict[str, Any]:
    """Says what a run took.

    Args:
        family: The loaded checkpoint.
        seconds: Time spent answering.

    Returns:
        `seconds`, and `peak_memory_gib`, over all GPUs that hold weights; None on a CPU.
    """
    peaks = [torch.cuda.max_memory_allocated(device) for device in _gpus(family)]
    return {"seconds": seconds, "peak_memory_gib": sum(peaks) / GIB if peaks else None}


def over_processes(own: dict[str, Any]) -> dict[str, Any]:
    """Adds up what the processes of a run took; all of them must call this, or those that do wait for ever.

    Args:
        own: This process's `seconds`, `samples` and `peak_memory_gib`.

    Returns:
        The same of the run: of the slowest process, of all, of all; and `world_size`, how many they are.
    """
    each = [own]
    if distributed.is_available() and distributed.is_initialized():
        each *= distributed.get_world_size()
        distributed.all_gather_object(each, own)
    peaks = [one["peak_memory_gib"] for one in each if one["peak_memory_gib"] is not None]
    return {
        "world_size": len(each),
        "seconds": max(one["seconds"] for one in each),
        "samples": sum(one["samples"] for one in each),
        "peak_memory_gib": sum(peaks) if peaks else None,
    }


def _gpus(family: Family) -> list[torch.device]:
    """The GPUs that hold weights, in order."""
    devices = {parameter.device for parameter in family.model.parameters()}
    return sorted((device for device in devices if device.type == "cuda"), key=lambda device: device.index or 0)
