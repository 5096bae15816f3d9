"""The exceptions a user can meet, and the one way to say "did you mean".

Every message says what was given, what is allowed and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LmmsCaError(Exception):
    """Base of every error this package raises on purpose."""


class OptionError(LmmsCaError, ValueError):
    """An option, name or layer that was given is not one of the allowed."""


class CheckpointError(LmmsCaError):
    """A checkpoint (or its processor) is missing, unsupported or inconsistent."""


class InputError(LmmsCaError, ValueError):
    """A question, picture or file is not usable as it is."""


class MemoryLimitError(LmmsCaError, RuntimeError):
    """What was asked for does not fit into the memory that may be used."""


class GenerationError(LmmsCaError, RuntimeError):
    """Answering failed; the message names the task and the document."""


class ProcessError(LmmsCaError, RuntimeError):
    """A process that answered ended without a word; it says nothing of what was asked."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Says which known name is nearest to `name`.

    Args:
        name: What was given.
        allowed: The known names.

    Returns:
        `" Did you mean 'x'?"`, or `""` when nothing is near.
    """
    close = get_close_matches(name, list(allowed), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> OptionError:
    """Builds the error for a name that is not among the known ones.

    Args:
        kind: What the name names, e.g. `"method"`.
        name: What was given.
        allowed: The known names.

    Returns:
        The error, to be raised by the caller.
    """
    names = sorted(allowed)
    return OptionError(f"Unknown {kind} '{name}'.{nearest(name, names)} Allowed: {', '.join(names)}.")
