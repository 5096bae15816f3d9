"""Question makers, one file per set; the file name is the set's name, and `KINDS` the scenes it is asked about."""

from __future__ import annotations

from importlib import import_module
from random import Random
from typing import Protocol, cast

from lmms_ca_plugin.tiny.world.questions._asked import Asked
from lmms_ca_plugin.tiny.world.scenes import Scene


class Maker(Protocol):
    """What a file in this folder holds."""

    KINDS: dict[str, float]
    """Kinds of scenes, and how often each is asked about."""

    BALANCED: bool
    """Whether a set takes kinds, and answers of a kind, equally often."""

    def ask(self, scene: Scene, draw: Random) -> Asked | None:
        """Asks a question about a scene; None where the scene does not allow the kind that was drawn."""


def load(benchmark: str) -> Maker:
    """Loads a set's question maker."""
    return cast(Maker, import_module(f"{__name__}.{benchmark}"))


__all__ = ["Asked", "Maker", "load"]
