"""A method with its options, under a name: what studies compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Method


@dataclass(frozen=True)
class Variant:
    """A method with its options, under a name.

    Attributes:
        name: Unique in its study; the name of its folder.
        method: The method's name.
        options: As in `--model_args`, by name.
        x: Where it stands on the study's axis, if the study has one.
        optional: Whether a study does without it, and says why, on a checkpoint that it does not fit.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    x: float | None = None
    optional: bool = False

    def made(self) -> Method:
        """Makes the method.

        Raises:
            OptionError: An option that it does not have or does not allow.
        """
        return load_method(self.method).from_options(self.options)


class Make(Protocol):
    """Makes a variant; a study adds the checkpoint's own options and the user's."""

    def __call__(self, name: str, method: str, x: float | None = None, **options: Any) -> Variant:
        """Makes a variant of a method, with the options that the study changes."""


def plain(name: str, method: str, x: float | None = None, **options: Any) -> Variant:
    """Makes a variant with no other options than the study's."""
    return Variant(name, method, options, x)
