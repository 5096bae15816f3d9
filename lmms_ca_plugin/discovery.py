"""Which files a folder of the package holds, and what other packages add to it; imports none of them.

A file name is a registered name. Another package adds a file of its own with an entry point, which is Python's own way
(PyPA, "Entry points specification"): the group is the folder's, the name is the registered name, the value the module.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoints, entry_points

from lmms_ca_plugin.errors import LmmsCaError


def modules(package: str, paths: Iterable[str]) -> dict[str, str]:
    """Lists what can be loaded by name.

    Args:
        package: The folder's package, e.g. `lmms_ca_plugin.methods`; other packages' group is `lmms_ca.methods`.
        paths: Its `__path__`.

    Returns:
        Module path by name, sorted by name; files that begin with an underscore are left out.

    Raises:
        LmmsCaError: Two packages give one name.
    """
    found = {m.name: f"{package}.{m.name}" for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")}
    group = f"lmms_ca.{package.rpartition('.')[2]}"
    for point in _entry_points(group, tuple(sys.path)):
        if found.setdefault(point.name, point.value) != point.value:
            raise LmmsCaError(
                f"Entry point '{point.name}' of group '{group}' names {point.value}, but that name is taken by "
                f"{found[point.name]}. Rename it, or uninstall one of the two packages."
            )
    return dict(sorted(found.items()))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 (packages lie along it)
    """Reads the metadata of every installed package, which takes longer than all else here."""
    return entry_points(group=group)
