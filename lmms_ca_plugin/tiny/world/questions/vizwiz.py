"""mini_vizwiz: snapshots of one thing, asked as one asks a helper; some cannot be answered.

A blurred picture still shows its colors, so nobody asks for them: whether they can be told would be a matter of taste.
"""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, votes
from lmms_ca_plugin.tiny.world.scenes import Scene
from lmms_ca_plugin.tiny.world.vocabulary import COLORS, SHAPES

KINDS = {"snap": 1.0}
BALANCED = False
UNANSWERABLE = "unanswerable"
_SAYS = ("What does this say?", "Can you tell me what this says?", "What is written here, please?")
_COLOR = ("What color is this?", "Can you tell me what color this is?", "Which color is this, please?")
_WHAT = ("What is this?", "Can you tell me what this is?", "What kind of shape is this?")


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks one question; None where the scene does not allow the kind that was drawn."""
    kind = draw.choice(("says", "color", "what"))
    if (kind == "what" and scene.signs) or (kind == "says" and scene.things and draw.random() < 0.7):
        return None
    if kind == "color" and scene.quality == "blurred":
        return None
    question = draw.choice({"says": _SAYS, "color": _COLOR, "what": _WHAT}[kind])
    shown = (scene.things or scene.signs)[0]
    guesses: tuple[str, ...]
    if kind == "color":
        answer, guesses = shown.color, tuple(COLORS)
    elif kind == "what":
        answer, guesses = scene.things[0].shape, SHAPES
    else:
        answer, guesses = (scene.signs[0].text.lower() if scene.signs else UNANSWERABLE), ()
    if scene.quality != "sharp" or answer == UNANSWERABLE:
        return Asked(question, UNANSWERABLE, kind, votes(draw, UNANSWERABLE, ("unsuitable", *guesses)))
    return Asked(question, answer, kind, votes(draw, answer, (UNANSWERABLE, "unsuitable"), 2))
