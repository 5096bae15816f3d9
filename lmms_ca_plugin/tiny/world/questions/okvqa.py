"""mini_okvqa: what the picture shows decides which fact is asked for; the fact itself is not in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, names, votes
from lmms_ca_plugin.tiny.world.scenes import Scene
from lmms_ca_plugin.tiny.world.vocabulary import ANIMALS, CORNERS, FESTIVALS, FLAGS, FOODS, LIKENESSES

KINDS = {"shapes": 1.0}
BALANCED = True


def _alone(facts: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Facts that nobody disagrees about."""
    return {of: (str(fact),) for of, fact in facts.items()}


_FACTS: dict[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "Which food has the color of the {}?": ("color", FOODS),
    "Which animal has the color of the {}?": ("color", ANIMALS),
    "Which town has a flag in the color of the {}?": ("color", _alone(FLAGS)),
    "What is built in the form of the {}?": ("shape", LIKENESSES),
    "In which month is the festival of the {}?": ("shape", _alone(FESTIVALS)),
    "How many corners does the {} have?": ("shape", _alone(CORNERS)),
}


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks for a fact; None where nothing can be named without giving away what the fact hangs on."""
    form = draw.choice(tuple(_FACTS))
    attribute, facts = _FACTS[form]
    named = [(thing, name) for thing in scene.things for name in names(thing, scene.things, attribute)]
    if not named:
        return None
    thing, name = draw.choice(named)
    answer, *others = facts[getattr(thing, attribute)]
    return Asked(form.format(name), answer, form.split(" {}")[0], votes(draw, answer, others))
