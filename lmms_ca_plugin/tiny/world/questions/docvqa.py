"""mini_docvqa: what a field of a page holds, as it is written there."""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked
from lmms_ca_plugin.tiny.world.scenes import Scene

KINDS = {"page": 1.0}
BALANCED = True
_FORMS = {
    "Name": ("What is the name?", "Who is named on the page?"),
    "Town": ("What is the town?", "Which town is given?"),
    "Item": ("What is the item?", "Which item is listed?"),
    "Date": ("What is the date?", "Which date is given?"),
    "Total": ("What is the total?", "How much is the total?"),
    "Code": ("What is the code?", "Which code is given?"),
}


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks for one of the fields, or for the title."""
    if draw.random() < 1 / (len(scene.fields) + 1):
        return Asked(draw.choice(("What is the title?", "What kind of page is this?")), scene.title, "title")
    line = draw.choice(scene.fields)
    return Asked(draw.choice(_FORMS[line.label]), line.value, line.label.lower())
