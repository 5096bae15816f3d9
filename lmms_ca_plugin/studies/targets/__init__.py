"""What the paper shows and can be reproduced, one file each; the file's name is the table's or figure's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from lmms_ca_plugin.studies import target_module
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


def nothing(swept: Swept) -> Sequence[Claim]:  # noqa: ARG001
    """Claims nothing: all numbers stand in the table or figure itself, or none are printed."""
    return ()


@dataclass(frozen=True)
class Target:
    """A table or figure of the paper; every file in this folder holds one as `TARGET`.

    Attributes:
        sweep: The sweep that it is made of.
        models: The paper's names of the checkpoints that it shows.
        table: The number of the printed table; None for a figure.
        varied: The option in which its variants of one method differ, so that any value is the paper's; None if in
            none.
        claims: Lists what the paper's text says about it.
    """

    sweep: str
    models: tuple[str, ...]
    table: int | None = None
    varied: str | None = None
    claims: Callable[[Swept], Sequence[Claim]] = nothing


def load_target(name: str) -> Target:
    """Finds a target.

    Raises:
        OptionError: There is none of that name.
    """
    target: Target = import_module(target_module(name)).TARGET
    return target
