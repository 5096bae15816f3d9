"""What the mini tasks' YAML points at: the picture of a row, drawn from its scene's name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from PIL import Image

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.tiny.world.render import render
from lmms_ca_plugin.tiny.world.scenes import scene


@lru_cache(maxsize=64)
def _drawn(name: str) -> Image.Image:
    return render(scene(name)).image


def pictures(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Draws a document's picture.

    Args:
        doc: A row of a mini set, with a `scene`.

    Returns:
        One RGB picture of 256 x 256 pixels.

    Raises:
        InputError: The row has no scene, or one whose name has another form.
    """
    if not doc.get("scene"):
        raise InputError(f"A document has no 'scene'; it has {', '.join(sorted(doc))}. Is this a row of a mini set?")
    return [_drawn(doc["scene"]).copy()]
