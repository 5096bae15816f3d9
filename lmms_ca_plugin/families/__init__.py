"""Families of checkpoints: the file name is the `model_type`. Entry points of group `lmms_ca.families` add others."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lmms_ca_plugin.discovery import modules
from lmms_ca_plugin.errors import CheckpointError, nearest

if TYPE_CHECKING:
    from lmms_ca_plugin.families._contract import Family


def family_names() -> tuple[str, ...]:
    """Lists the supported `model_type`s, sorted; imports none of them."""
    return tuple(modules(__name__))


def load_family(model_type: str) -> type[Family]:
    """Finds the family of a checkpoint.

    Args:
        model_type: `config.model_type` of the checkpoint.

    Returns:
        The class in `families/<model_type>.py`, or in the module of another package's entry point.

    Raises:
        CheckpointError: There is no such file.
    """
    known = modules(__name__)
    if model_type not in known:
        raise CheckpointError(
            f"Checkpoints of type '{model_type}' are not supported.{nearest(model_type, known)} "
            f"Supported: {', '.join(known)}. A new type is one file in families/."
        )
    family: type[Family] = import_module(known[model_type]).FAMILY
    return family
