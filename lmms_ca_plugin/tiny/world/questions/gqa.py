"""mini_gqa: attributes and relations of shapes, one answer each, balanced."""

from __future__ import annotations

from random import Random

from lmms_ca_plugin.tiny.world.questions._asked import Asked, article, names
from lmms_ca_plugin.tiny.world.scenes import Scene, Thing
from lmms_ca_plugin.tiny.world.vocabulary import COLORS, SIZES

KINDS = {"shapes": 1.0}
BALANCED = True
RELATIONS = {
    "to the left of": (0, -1),
    "to the right of": (0, 1),
    "above": (-1, 0),
    "below": (1, 0),
}
OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}


def ask(scene: Scene, draw: Random) -> Asked | None:
    """Asks one question; None where the scene does not allow the kind that was drawn."""
    return draw.choices(tuple(_MAKERS), tuple(_MAKERS.values()))[0](scene, draw)


def ask_about_two(scene: Scene, draw: Random) -> Asked | None:
    """Asks about two things of a scene and what is between them; None where the scene does not allow it."""
    return draw.choice(_ABOUT_TWO)(scene, draw)


def ask_to_compare(scene: Scene, draw: Random) -> Asked | None:
    """Asks to compare two named things; None where the scene does not allow it."""
    return draw.choice(_COMPARING)(scene, draw)


def _one(scene: Scene, draw: Random, hidden: str = "") -> tuple[Thing, str] | None:
    named = [(thing, name) for thing in scene.things for name in names(thing, scene.things, hidden)]
    return draw.choice(named) if named else None


def _attribute(scene: Scene, draw: Random) -> Asked | None:
    attribute = draw.choice(("color", "shape", "size"))
    found = _one(scene, draw, attribute)
    if found is None:
        return None
    thing, name = found
    value = getattr(thing, attribute)
    if attribute == "shape":
        return Asked(f"What is the {name}?", value, "shape", full=f"It is {article(value)}.")
    return Asked(f"What {attribute} is the {name}?", value, attribute, full=f"The {name} is {value}.")


def _choose(scene: Scene, draw: Random) -> Asked | None:
    attribute = draw.choice(("color", "size"))
    found = _one(scene, draw, attribute)
    if found is None:
        return None
    thing, name = found
    value = getattr(thing, attribute)
    other = draw.choice([v for v in (tuple(COLORS) if attribute == "color" else SIZES) if v != value])
    first, second = draw.sample((value, other), 2)
    return Asked(f"Is the {name} {first} or {second}?", value, f"choose {attribute}", full=f"The {name} is {value}.")


def beside(scene: Scene, thing: Thing, relation: str) -> Thing | None:
    """Finds the only thing that lies from `thing` in a direction, if it is in the same row or column.

    So the answer is the same whether "to the left of" is read as next to it or as anywhere on that side.
    """
    down, across = RELATIONS[relation]
    there = [
        other for other in scene.things if (other.row - thing.row) * down + (other.column - thing.column) * across > 0
    ]
    if len(there) != 1:
        return None
    (only,) = there
    return only if (only.row == thing.row if across else only.column == thing.column) else None


def _related(scene: Scene, draw: Random) -> Asked | None:
    pairs = [
        (name, relation, other)
        for thing in scene.things
        for relation in RELATIONS
        if (other := beside(scene, thing, relation)) is not None
        for name in names(thing, scene.things)
    ]
    if not pairs:
        return None
    name, relation, other = draw.choice(pairs)
    attribute = draw.choice(("color", "shape"))
    value = getattr(other, attribute)
    what = "What color is the shape" if attribute == "color" else "What is"
    full = f"It is {article(value) if attribute == 'shape' else value}."
    return Asked(f"{what} {relation} the {name}?", value, f"related {attribute}", full=full)


def _two(scene: Scene, draw: Random, hidden: str = "") -> tuple[Thing, str, Thing, str] | None:
    if len(scene.things) < 2:
        return None
    one, two = draw.sample(scene.things, 2)
    first, second = names(one, scene.things, hidden), names(two, scene.things, hidden)
    return (one, draw.choice(first), two, draw.choice(second)) if first and second else None


def _relation(one: Thing, two: Thing, draw: Random) -> str | None:
    """A relation in which `one` stands to `two`."""
    true = [
        relation
        for relation, (down, across) in RELATIONS.items()
        if (one.row - two.row) * down + (one.column - two.column) * across > 0
    ]
    return draw.choice(true) if true else None


def _side(scene: Scene, draw: Random) -> Asked | None:
    found = _two(scene, draw)
    if found is None or found[0].column == found[2].column:
        return None
    one, first, two, second = found
    value = "left" if one.column < two.column else "right"
    return Asked(
        f"Is the {first} on the left or on the right of the {second}?",
        value,
        "side",
        full=f"The {first} is on the {value} of the {second}.",
    )


def _verify(scene: Scene, draw: Random) -> Asked | None:
    found = _two(scene, draw)
    if found is None or (relation := _relation(found[0], found[2], draw)) is None:
        return None
    _, first, _, second = found
    true = draw.random() < 0.5
    said = relation if true else OPPOSITE[relation]
    return Asked(
        f"Is the {first} {said} the {second}?",
        "yes" if true else "no",
        "verify",
        full=f"{'Yes' if true else 'No'}, the {first} is {relation} the {second}.",
    )


def _same(scene: Scene, draw: Random) -> Asked | None:
    attribute, same = draw.choice(("color", "size")), draw.random() < 0.5
    found = _two(scene, draw, attribute)
    if found is None or (getattr(found[0], attribute) == getattr(found[2], attribute)) != same:
        return None
    one, first, _, second = found
    value = getattr(one, attribute)
    full = f"Yes, both are {value}." if same else f"No, only the {first} is {value}."
    return Asked(
        f"Do the {first} and the {second} have the same {attribute}?",
        "yes" if same else "no",
        f"same {attribute}",
        full=full,
    )


_MAKERS = {_attribute: 3, _choose: 1, _related: 4, _side: 1, _verify: 2, _same: 2}
_ABOUT_TWO = (_related, _side, _verify, _verify, _same, _same)
_COMPARING = (_side, _side, _verify, _verify, _same, _same, _same)
