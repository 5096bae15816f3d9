"""Questions that no set asks: what must be read off a picture before two things can be compared.

Where a thing lies, and an attribute of two things, one after the other. Without them comparisons stay at chance long
after all single attributes are learned.
"""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, names, position
from lmms_ca_plugin.tiny.world.scenes import Scene


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks one question; None where the scene does not allow the kind that was drawn."""
    return draw.choice((_where, _where, _both))(scene, draw)


def _where(scene: Scene, draw: Random) -> Asked | None:
    named = [(thing, name) for thing in scene.things for name in names(thing, scene.things)]
    if not named:
        return None
    thing, name = draw.choice(named)
    return Asked(f"Where is the {name}?", position(thing), "where")


def _both(scene: Scene, draw: Random) -> Asked | None:
    attribute = draw.choice(("color", "size"))
    named = [(thing, said) for thing in scene.things if (said := names(thing, scene.things, attribute))]
    if len(named) < 2:
        return None
    (one, first), (two, second) = draw.sample(named, 2)
    question = f"What {attribute} are the {draw.choice(first)} and the {draw.choice(second)}?"
    return Asked(question, f"{getattr(one, attribute)} and {getattr(two, attribute)}", f"both {attribute}")
