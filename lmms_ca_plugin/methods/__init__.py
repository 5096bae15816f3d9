"""Methods: the file name is the method's name."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from lmms_ca_plugin.errors import unknown

if TYPE_CHECKING:
    from lmms_ca_plugin.methods._contract import Method


def method_names() -> tuple[str, ...]:
    """Lists the methods, sorted; imports none of them."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def load_method(name: str) -> type[Method]:
    """Finds a method by its name.

    Args:
        name: The file's name in `methods/`.

    Returns:
        The dataclass of its options.

    Raises:
        OptionError: There is no such file.
    """
    if name not in method_names():
        raise unknown("method", name, method_names())
    method: type[Method] = import_module(f"{__name__}.{name}").METHOD
    return method
