"""Checkpoints that come with the package; the folder's name is what `pretrained` takes."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def bundled() -> dict[str, Path]:
    """Lists the bundled checkpoints.

    Returns:
        Folder by name, sorted by name.
    """
    return {config.parent.name: config.parent for config in sorted(_HERE.glob("*/config.json"))}
