"""What the paper shows and can be reproduced, one file each; the file's name is the table's or figure's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from lmms_ca_plugin.discovery import modules
from lmms_ca_plugin.errors import unknown
from lmms_ca_plugin.studies.sweep import Swept


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper with a number in it.

    Attributes:
        task: On which task we looked.
        says: What is claimed of it.
        printed: The paper's number; empty where it says nothing of this checkpoint, task and settings.
        ours: Ours, on the checkpoint at hand.
        why: Why nothing is printed.
    """

    task: str
    says: str
    printed: str
    ours: str
    why: str = ""


class Target(Protocol):
    """What a file in this folder holds."""

    SWEEP: str
    """The sweep that it is made of."""

    MODELS: tuple[str, ...]
    """The paper's names of the checkpoints that it shows."""

    TABLE: int | None
    """The number of the printed table; None for a figure."""

    VARIED: str | None
    """The option in which its variants of one method differ, so that any value is the paper's; None if in none."""

    def claims(self, swept: Swept) -> Sequence[Claim]:
        """Lists what the paper's text says about it."""


def load_target(name: str) -> Target:
    """Finds a target.

    Raises:
        OptionError: There is none of that name.
    """
    known = modules(__name__, __path__)
    if name not in known:
        raise unknown("table or figure of the paper", name, known)
    return cast(Target, import_module(known[name]))
