"""Families of checkpoints: the file name is the `model_type`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from lmms_ca_plugin.errors import CheckpointError, nearest

if TYPE_CHECKING:
    from lmms_ca_plugin.families._contract import Family


def family_names() -> tuple[str, ...]:
    """Lists the supported `model_type`s, sorted; imports none of them."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def load_family(model_type: str) -> type[Family]:
    """Finds the family of a checkpoint.

    Args:
        model_type: `config.model_type` of the checkpoint.

    Returns:
        The class in `families/<model_type>.py`.

    Raises:
        CheckpointError: There is no such file.
    """
    if model_type not in family_names():
        raise CheckpointError(
            f"Checkpoints of type '{model_type}' are not supported.{nearest(model_type, family_names())} "
            f"Supported: {', '.join(family_names())}. A new type is one file in families/."
        )
    family: type[Family] = import_module(f"{__name__}.{model_type}").FAMILY
    return family
