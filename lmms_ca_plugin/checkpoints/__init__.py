"""Checkpoints that come with the package; the folder's name is what `pretrained` takes.

A folder may hold `methods.json`: options by method that this checkpoint needs, because the paper names none for it.
"""

from __future__ import annotations

import json
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


def default_options(pretrained: str, method: str) -> dict[str, Any]:
    """Finds the options that a method takes on a checkpoint where the user names none.

    Args:
        pretrained: What the user gave.
        method: The method's name.

    Returns:
        Options by name; none for a checkpoint that is not bundled.
    """
    folder = bundled().get(pretrained)
    if folder is None or not (folder / METHODS).is_file():
        return {}
    options: dict[str, Any] = json.loads((folder / METHODS).read_text(encoding="utf-8")).get(method, {})
    return options
