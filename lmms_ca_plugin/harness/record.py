"""The record of a run: every setting with its resolved value, and the versions of what computed it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.load import CheckpointOptions

PACKAGES = {"plugin": "lmms-ca", "lmms_eval": "lmms-eval", "transformers": "transformers", "torch": "torch"}


def run_record(engine: Engine, checkpoint: CheckpointOptions, seconds: float, samples: int) -> dict[str, Any]:
    """Describes a run so that it can be run again.

    Args:
        engine: The engine that answered.
        checkpoint: What it was loaded from.
        seconds: Time spent answering.
        samples: Questions answered.

    Returns:
        A JSON-able dict; `peak_memory_gib` is None on a CPU, `commit` where the checkpoint is a local folder.
    """
    family, model = engine.family, engine.family.model
    gpu = model.device.type == "cuda"
    return {
        "entry": engine.name,
        "pretrained": checkpoint.pretrained,
        "revision": checkpoint.revision,
        "parameters": engine.method.describe(),
        "seed": engine.options.seed,
        "batch_size": engine.options.batch_size,
        "conversation": family.conversation,
        "image_aspect_ratio": family.image_aspect_ratio,
        "model_type": family.trunk.model_type,
        "commit": getattr(model.config, "_commit_hash", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if gpu else "cpu",
        "attn_implementation": family.text_config._attn_implementation,
        "seconds": seconds,
        "samples": samples,
        "peak_memory_gib": torch.cuda.max_memory_allocated(model.device) / 2**30 if gpu else None,
        "versions": {name: version(package) for name, package in PACKAGES.items()},
    }
