"""A device by its name, refused at once where PyTorch does not have it."""

from __future__ import annotations

import torch

from lmms_ca_plugin.errors import OptionError


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
