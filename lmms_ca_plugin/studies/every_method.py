"""One question answered by every method there is, one after the other, on one loaded checkpoint.

Rule: a method that this checkpoint cannot be run with as it stands becomes an outcome with its reason, not a gap. One
whose options somebody gave was asked for by name, so it must run, and so must the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmms_ca_plugin.engine.engine import Answer, Engine, Request, RunOptions
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.errors import GenerationError, LmmsCaError
from lmms_ca_plugin.families._contract import Family, Question, Trunk
from lmms_ca_plugin.methods import load_method, method_names
from lmms_ca_plugin.methods._contract import Method
from lmms_ca_plugin.options import option_types

BASELINE = "vanilla"


@dataclass(frozen=True)
class Declared:
    """A method before the weights are read.

    Attributes:
        method: With its options, or None if it cannot be run.
        given: The options that somebody gave.
        reason: Why it cannot be run.
    """

    method: Method | None
    given: dict[str, str]
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a method.

    Attributes:
        declared: As it went in.
        answer: What it answered, or None if it did not run.
        reason: Why it did not.
    """

    declared: Declared
    answer: Answer | None = None
    reason: str = ""


def declare(trunk: Trunk, given: Mapping[str, dict[str, str]]) -> dict[str, Declared]:
    """Builds every method for a checkpoint, the baseline first.

    Args:
        trunk: The facts of the checkpoint's language model.
        given: Options as typed, by method.

    Returns:
        By name; a method that can log its maps does.

    Raises:
        OptionError: Options that somebody gave are not allowed, or do not fit the checkpoint.
    """
    methods = {}
    for name in sorted(method_names(), key=lambda name: (name != BASELINE, name)):
        mine, cls = given.get(name, {}), load_method(name)
        maps = {"log_maps": True} if "log_maps" in option_types(cls) else {}
        try:
            method = cls.from_options({**mine, **maps})
            method.plan(trunk)
        except LmmsCaError as error:
            if _must_run(name, mine):
                raise
            methods[name] = Declared(None, mine, str(error))
        else:
            methods[name] = Declared(method, mine)
    return methods


def answer(
    family: Family, question: Question, methods: Mapping[str, Declared], generation: Generation
) -> dict[str, Outcome]:
    """Asks every method.

    Args:
        family: The loaded checkpoint.
        question: What is asked.
        methods: What `declare` built.
        generation: How answers are generated.

    Returns:
        By name, in the order of `methods`.

    Raises:
        LmmsCaError: A method that must run could not.
        GenerationError: A method failed for a reason that nobody foresaw.
    """
    outcomes = {}
    for name, declared in methods.items():
        if declared.method is None:
            outcomes[name] = Outcome(declared, reason=declared.reason)
            continue
        try:
            engine = Engine(family, declared.method, RunOptions(), name, is_main=False)
            (found,) = engine.answer([Request(question, generation)])
        except LmmsCaError as error:
            cause = error.__cause__ if isinstance(error, GenerationError) else error
            if _must_run(name, declared.given) or not isinstance(cause, LmmsCaError):
                raise
            outcomes[name] = Outcome(declared, reason=str(cause))
        else:
            outcomes[name] = Outcome(declared, found)
    return outcomes


def _must_run(name: str, given: Mapping[str, str]) -> bool:
    return name == BASELINE or bool(given)
