"""Checkpoints that come with the package; the folder's name is what `pretrained` takes.

A folder may hold `methods.json`: options by method that this checkpoint needs, because the paper names none for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
METHODS = "methods.json"


def bundled() -> dict[str, Path]:
    """Lists the bundled checkpoints.

    Returns:
        Folder by name, sorted by name.
    """
    return {config.parent.name: config.parent for config in sorted(_HERE.glob("*/config.json"))}


def options_of(pretrained: str, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Joins the options that a bundled checkpoint brings for a method with those that were given, which win.

    Args:
        pretrained: What the user gave.
        method: The method's name.
        given: Options by name. A `profile` names all that a checkpoint needs, so the checkpoint then brings nothing.

    Returns:
        Options by name; `given` for a checkpoint that is not bundled.
    """
    return {**({} if "profile" in given else _brought(pretrained, method)), **given}


def _brought(pretrained: str, method: str) -> dict[str, Any]:
    folder = bundled().get(pretrained)
    if folder is None or not (folder / METHODS).is_file():
        return {}
    options: dict[str, Any] = json.loads((folder / METHODS).read_text(encoding="utf-8")).get(method, {})
    return options
