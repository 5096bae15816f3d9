"""Methods: the file name is the method's name. Another package adds one by an entry point of group `lmms_ca.methods`.

Listing them imports none; the names under which the harness knows them are made here too, so that its manifests stay
light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmms_ca_plugin.discovery import module_of, modules

if TYPE_CHECKING:
    from lmms_ca_plugin.methods._contract import Method

LAYERMASK_BLOCKS = 96  # more than any supported trunk has; the loaded checkpoint refuses what it lacks


@dataclass(frozen=True)
class MethodEntry:
    """A name under which a method can be run.

    Attributes:
        name: The entry's name without its prefix, e.g. `layermask_L14`.
        method: The method's name, e.g. `layermask`.
        options: Options that the name stands for, e.g. `{"layer": 14}`.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)


def model_ids(entry: str) -> tuple[str, str]:
    """Says what the harness calls an entry: the name that results bear, and its alias."""
    return f"llava_{entry}", f"mllm_{entry}"


def method_names() -> tuple[str, ...]:
    """Lists the methods, sorted; imports none of them."""
    return tuple(modules(__name__))


def method_entries() -> tuple[MethodEntry, ...]:
    """Lists the names under which methods can be run: their own, and one per block for `layermask`; imports none."""
    blocks = (MethodEntry(f"layermask_L{n}", "layermask", {"layer": n}) for n in range(LAYERMASK_BLOCKS))
    return (*(MethodEntry(name, name) for name in method_names()), *blocks)


def load_method(name: str) -> type[Method]:
    """Finds a method by its name.

    Args:
        name: The file's name in `methods/`, or the entry point's of another package.

    Returns:
        The dataclass of its options.

    Raises:
        OptionError: There is no such file.
    """
    method: type[Method] = import_module(module_of("method", __name__, name)).METHOD
    return method
