"""What a question maker gives, and how it speaks of what it sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from lmms_ca_plugin.tiny.world.scenes import Thing

ANNOTATORS = 10


@dataclass(frozen=True)
class Asked:
    """A question on a scene.

    Attributes:
        question: The text, as the set's rows hold it.
        answer: What is right.
        kind: What is asked for; answers are balanced within a kind, and a kind's most frequent answer is a baseline.
        votes: What ten annotators said, where the set has annotators.
        full: The answer as a sentence, where the set has one.
    """

    question: str
    answer: str
    kind: str
    votes: tuple[str, ...] = ()
    full: str = ""


def votes(draw: Random, answer: str, others: Sequence[str], most_others: int = 3) -> tuple[str, ...]:
    """Draws ten annotators' answers, of which at most `most_others` differ, in random order.

    At least seven agree, so the right answer keeps the full score under every annotator that is left out.
    """
    differing = [draw.choice(others) for _ in range(draw.randint(0, most_others))] if others else []
    given = [answer] * (ANNOTATORS - len(differing)) + differing
    draw.shuffle(given)
    return tuple(given)


def names(thing: Thing, things: Iterable[Thing], hidden: str = "") -> list[str]:
    """Lists descriptions that fit this thing alone.

    Args:
        thing: The thing meant.
        things: All things of the scene.
        hidden: An attribute that must not be said, because it is asked for.

    Returns:
        Descriptions without an article, short ones first.
    """
    found = []
    for said in (("shape",), ("color",), ("size",), ("color", "shape"), ("size", "shape"), ("size", "color")):
        alike = [other for other in things if all(getattr(other, a) == getattr(thing, a) for a in said)]
        if hidden not in said and len(alike) == 1:
            words = [getattr(thing, a) for a in ("size", "color", "shape") if a in said]
            found.append(" ".join(words if "shape" in said else [*words, "shape"]))
    return found


def position(thing: Thing) -> str:
    """Says in which of the nine places a thing lies."""
    row, column = ("top", "middle", "bottom")[thing.row], ("left", "middle", "right")[thing.column]
    return row if row == column else f"{row} {column}"


def article(noun: str) -> str:
    """Puts the indefinite article before a noun phrase of this world."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
