"""The answer to "Write a general description of the image.": all of a scene, in reading order."""

from __future__ import annotations

from lmms_ca_plugin.tiny.world.questions._asked import article
from lmms_ca_plugin.tiny.world.scenes import Scene

REQUEST = "Write a general description of the image."
_UNCLEAR = {"blurred": "a blurred picture", "dark": "a dark picture", "blank": "an empty picture"}


def caption(scene: Scene) -> str:
    """Describes a scene.

    Args:
        scene: The scene.

    Returns:
        A list of what is seen, or what is wrong with the picture.
    """
    if scene.quality != "sharp":
        return _UNCLEAR[scene.quality]
    if scene.title:
        return ", ".join([scene.title, *(f"{line.label} {line.value}" for line in scene.fields)])
    seen = [(t.row, t.column, f"{t.size} {t.color} {t.shape}") for t in scene.things]
    seen += [(s.row, 0, f"{s.color} sign {s.text.lower()}") for s in scene.signs]
    return ", ".join(article(text) for *_, text in sorted(seen))
