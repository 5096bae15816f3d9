"""Which files a folder of the package holds, and what other packages add to it; imports none of them.

A file name is a registered name. Another package adds a file of its own with an entry point, which is Python's own way
(PyPA, "Entry points specification"): the group is the folder's, the name is the registered name, the value the module.
"""

from __future__ import annotations

import pkgutil
import sys
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec

from lmms_ca_plugin.errors import LmmsCaError, unknown


def modules(package: str) -> dict[str, str]:
    """Lists what can be loaded by name.

    Args:
        package: The folder's package, e.g. `lmms_ca_plugin.methods`; other packages' group is `lmms_ca.methods`.

    Returns:
        Module path by name, sorted by name; files that begin with an underscore are left out.

    Raises:
        LmmsCaError: Two packages give one name.
    """
    spec = find_spec(package)
    assert spec is not None
    files = pkgutil.iter_modules(spec.submodule_search_locations)
    found = {file.name: f"{package}.{file.name}" for file in files if not file.name.startswith("_")}
    group = f"lmms_ca.{package.rpartition('.')[2]}"
    for point in _entry_points(group, tuple(sys.path)):
        if found.setdefault(point.name, point.value) != point.value:
            raise LmmsCaError(
                f"Entry point '{point.name}' of group '{group}' names {point.value}, but that name is taken by "
                f"{found[point.name]}. Rename it, or uninstall one of the two packages."
            )
    return dict(sorted(found.items()))


def module_of(kind: str, package: str, name: str) -> str:
    """Finds what a name stands for.

    Args:
        kind: What the name names, e.g. `"method"`.
        package: The folder's package.
        name: What was given.

    Returns:
        Its module path.

    Raises:
        OptionError: The folder has no such file, and no other package adds it.
    """
    known = modules(package)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 (packages lie along it)
    """Reads the metadata of every installed package, which takes longer than all else here."""
    return entry_points(group=group)
