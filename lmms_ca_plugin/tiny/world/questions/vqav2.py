"""mini_vqav2: yes/no, number and other questions with ten annotators, some of whom disagree.

Where there are signs, only they are asked about: whether a board counts as a shape would be a matter of taste.
"""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, article, names, position, votes
from lmms_ca_plugin.tiny.world.scenes import Scene
from lmms_ca_plugin.tiny.world.vocabulary import COLORS, SHAPES

KINDS = {"shapes": 0.7, "street": 0.3}
BALANCED = True
_LIKE = {
    "red": ("dark red", "pink"),
    "orange": ("dark yellow", "red"),
    "yellow": ("gold", "orange"),
    "green": ("dark green", "blue"),
    "blue": ("dark blue", "purple"),
    "purple": ("violet", "pink"),
    "white": ("gray", "beige"),
    "black": ("dark", "gray"),
}


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks one question; None where the scene does not allow the kind that was drawn."""
    return draw.choice((_exists, _exists, _count, _count, _color, _what))(scene, draw)


def _yes(draw: Random, question: str, true: bool, kind: str) -> Asked:
    answer, other = ("yes", "no") if true else ("no", "yes")
    return Asked(question, answer, kind, votes(draw, answer, (other,), 2))


def _exists(scene: Scene, draw: Random) -> Asked | None:
    if scene.signs:
        true = draw.random() < 0.5
        there = [sign.color for sign in scene.signs]
        color = draw.choice([c for c in COLORS if (c in there) == true])
        return _yes(draw, f"Is there {article(color)} sign?", true, "is there")
    true = draw.random() < 0.5
    if true and scene.things:
        thing = draw.choice(scene.things)
        said = draw.choice((thing.shape, f"{thing.color} shape", f"{thing.color} {thing.shape}"))
        return _yes(draw, f"Is there {article(said)}?", True, "is there")
    if true:
        return None
    shape, color = draw.choice(SHAPES), draw.choice(tuple(COLORS))
    alone = draw.random() < 0.4
    if any(t.shape == shape and (alone or t.color == color) for t in scene.things):
        return None
    return _yes(draw, f"Is there {article(shape if alone else f'{color} {shape}')}?", False, "is there")


def _count(scene: Scene, draw: Random) -> Asked | None:
    if scene.signs:
        what, number = "signs", len(scene.signs)
    else:
        thing = draw.choice(scene.things) if scene.things else None
        shape = thing.shape if thing and draw.random() < 0.75 else draw.choice(SHAPES)
        color = thing.color if thing and draw.random() < 0.75 else draw.choice(tuple(COLORS))
        plural = "crosses" if shape == "cross" else f"{shape}s"
        what, number = draw.choice(
            (
                ("shapes", len(scene.things)),
                (plural, sum(t.shape == shape for t in scene.things)),
                (f"{color} shapes", sum(t.color == color for t in scene.things)),
            )
        )
    near = [str(n) for n in (number - 1, number + 1) if n >= 0]
    return Asked(f"How many {what} are there?", str(number), "how many", votes(draw, str(number), near, 2))


def _color(scene: Scene, draw: Random) -> Asked | None:
    if scene.signs:
        if len(scene.signs) > 1:
            return None
        color = scene.signs[0].color
        return Asked("What color is the sign?", color, "what color is the", votes(draw, color, _LIKE[color]))
    named = [(thing, name) for thing in scene.things for name in names(thing, scene.things, "color")]
    if not named:
        return None
    thing, name = draw.choice(named)
    given = votes(draw, thing.color, _LIKE[thing.color])
    return Asked(f"What color is the {name}?", thing.color, "what color is the", given)


def _what(scene: Scene, draw: Random) -> Asked | None:
    if not scene.things or scene.signs:
        return None
    thing = draw.choice(scene.things)
    others = [s for s in SHAPES if s != thing.shape]
    return Asked(f"What is at the {position(thing)}?", thing.shape, "what is", votes(draw, thing.shape, others, 2))
