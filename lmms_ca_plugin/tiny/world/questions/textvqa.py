"""mini_textvqa: what a board says."""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, votes
from lmms_ca_plugin.tiny.world.scenes import Scene

KINDS = {"street": 1.0}
BALANCED = False


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks what one of the boards says."""
    sign = draw.choice(scene.signs)
    which = [f"{sign.color} sign"]
    if len(scene.signs) == 1:
        which = ["sign"]
    elif sign is scene.signs[0]:
        which.append("top sign")
    elif sign is scene.signs[-1]:
        which.append("bottom sign")
    name, number = draw.choice(which), sign.text.isdigit()
    forms = (
        ("what number is on the {}?", "what does the {} say?")
        if number
        else (
            "what does the {} say?",
            "what word is on the {}?",
        )
    )
    answer = sign.text.lower()
    wrong = (answer[:-1], answer + "s") if not number else (answer[:-1], answer + "0")
    return Asked(draw.choice(forms).format(name), answer, "number" if number else "word", votes(draw, answer, wrong))
