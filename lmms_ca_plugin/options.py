"""Options as people type them, turned into the typed fields of frozen dataclasses.

The harness splits `--model_args` at commas and guesses types, so lists are written `2:4:8`, and a number or a boolean
may arrive as itself or as text. Every field's annotation says what is allowed; nothing is guessed here.
"""

from __future__ import annotations

import ast
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lmms_ca_plugin.errors import OptionError, unknown

T = TypeVar("T")
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)
"""Annotations, evaluated once per class: every question's settings ask for them."""


@dataclass(frozen=True)
class Refused:
    """Why a text does not fit one annotation."""

    allowed: str


def _whole(text: str) -> int | Refused:
    digits = text[1:] if text[:1] in "+-" else text
    return int(text) if digits.isdecimal() else Refused("a whole number")


def _number(text: str) -> float | Refused:
    try:
        number = float(text)
    except ValueError:
        return Refused("a number")
    return number if math.isfinite(number) else Refused("a finite number")


def _texts(value: Any) -> tuple[str, ...] | Refused:
    """Takes texts as they are, blanks included; a list may be typed as Python, or JSON, writes it."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a text like [INST]
            return (value,)
    texts = (value,) if isinstance(value, str) else value
    right = isinstance(texts, (tuple, list)) and all(isinstance(text, str) for text in texts)
    return tuple(texts) if right else Refused('a text, or a list of texts like ["a", "b"]')


def _convert(annotation: Any, value: Any) -> Any:
    """Converts one value, or returns the `Refused` that says what the annotation allows."""
    text = str(value).strip()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        answers = [_convert(a, value) for a in arguments]
        taken = [a for a in answers if not isinstance(a, Refused)]
        if not taken:
            return Refused(" or ".join(a.allowed for a in answers))
        return None if None in taken else taken[0]  # a text would take "None", too
    if origin is Literal:
        return text if text in arguments else Refused(", ".join(arguments))
    if origin is tuple and arguments[0] is str:
        return _texts(value)
    if origin is tuple:
        numbers = [_whole(t) for t in (map(str, value) if isinstance(value, (tuple, list)) else text.split(":"))]
        wrong = not numbers or any(isinstance(n, Refused) for n in numbers)
        return Refused("whole numbers joined by colons, like 2:4:8") if wrong else tuple(numbers)
    if annotation is types.NoneType:
        return None if value is None or text == "None" else Refused("None")
    if annotation is bool:
        known = {"true": True, "false": False}
        return known.get(text.lower(), Refused("true, false"))
    if annotation is int:
        # The harness reads "-1" as the number -1.0.
        return int(value) if isinstance(value, float) and value.is_integer() else _whole(text)
    if annotation is float:
        return Refused("a number") if isinstance(value, bool) else _number(text)
    if annotation is str:
        return text
    raise TypeError(f"options cannot be of type {annotation!r}")


def option_types(cls: type[Any]) -> dict[str, Any]:
    """Lists a dataclass's options.

    Args:
        cls: A dataclass.

    Returns:
        Annotation by field name, in the order of the fields.
    """
    hints = _hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if f.init}


def build(cls: type[T], options: Mapping[str, Any]) -> T:
    """Makes a dataclass of typed options.

    Args:
        cls: A dataclass whose fields have defaults or are given.
        options: Values by field name, as typed or as text.

    Returns:
        The instance; its own `__post_init__` has checked it.

    Raises:
        OptionError: A name that `cls` does not have, or a value that its annotation does not allow.
    """
    allowed = option_types(cls)
    values = {}
    for name, value in options.items():
        if name not in allowed:
            raise unknown("option", name, allowed)
        values[name] = _convert(allowed[name], value)
        if isinstance(values[name], Refused):
            raise OptionError(f"{name}={value} is not allowed. Allowed: {values[name].allowed}.")
    return cls(**values)


def split(options: Mapping[str, Any], classes: Iterable[type[Any]]) -> list[dict[str, Any]]:
    """Deals options out to the dataclasses that have them.

    Args:
        options: Values by option name.
        classes: Dataclasses with disjoint field names.

    Returns:
        One dict per class, in their order.

    Raises:
        OptionError: An option that none of them has; the nearest known name is in the message.
    """
    known = [option_types(cls) for cls in classes]
    every = [name for names in known for name in names]
    for name in options:
        if name not in every:
            raise unknown("option", name, every)
    return [{name: value for name, value in options.items() if name in names} for names in known]


def spell(value: Any) -> str:
    """Writes an option's value as `--model_args` takes it.

    Args:
        value: A number, a text, a boolean or a list.

    Returns:
        Its text; lists are joined by colons.
    """
    if isinstance(value, (list, tuple)):
        return ":".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def split_args(text: str) -> dict[str, str]:
    """Splits `--model_args` at the commas outside brackets and quotes, as the harness does.

    Args:
        text: E.g. `pretrained=a/b,layers=[1,2]`.

    Returns:
        Value by option.
    """
    parts = re.findall(r"""(?:[^,\[\]{}"']|\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*')+""", text or "")
    return {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in parts)}


def names_in(joined: str) -> tuple[str, ...]:
    """Splits names at commas, as the harness's `--tasks` does; blanks around a name do not belong to it."""
    return tuple(name.strip() for name in joined.split(","))
