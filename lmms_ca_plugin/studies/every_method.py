"""One question answered by every method that changes answers, one after the other, on one loaded checkpoint.

Rule: a method that this checkpoint cannot be run with as it stands becomes an outcome with its reason, not a gap. One
whose options somebody gave was asked for by name, so it must run, and so must the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmms_ca_plugin.checkpoints import options_of
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions
from lmms_ca_plugin.errors import GenerationError, LmmsCaError, OptionError
from lmms_ca_plugin.families._contract import Family, Question, Trunk
from lmms_ca_plugin.methods import load_method, method_names
from lmms_ca_plugin.methods._contract import Method
from lmms_ca_plugin.options import option_types
from lmms_ca_plugin.results.schema import BASELINE


@dataclass(frozen=True)
class Declared:
    """A method before the weights are read.

    Attributes:
        method: With its options, or None if it cannot be run.
        options: Those that the user gave, and those that a bundled checkpoint brings along.
        required: Whether it was asked for by name, or is the baseline.
        reason: Why it cannot be run.
    """

    method: Method | None
    options: dict[str, Any]
    required: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a method.

    Attributes:
        declared: As it went in.
        answer: What it answered, or None if it did not run.
        parameters: Every option with its value, as the checkpoint settled it.
        reason: Why it did not run.
    """

    declared: Declared
    answer: Answer | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


def declare(trunk: Trunk, given: Mapping[str, Mapping[str, Any]], pretrained: str = "") -> dict[str, Declared]:
    """Builds every method for a checkpoint, the baseline first.

    Args:
        trunk: The facts of the checkpoint's language model.
        given: Options by method, as the user set them.
        pretrained: The checkpoint's name; a bundled one has options of its own.

    Returns:
        By name. A method that can log its maps does. One that only observes answers as the baseline, and is left out.

    Raises:
        OptionError: Options that somebody gave are not allowed, or do not fit the checkpoint.
    """
    methods = {}
    for name in sorted(method_names(), key=lambda name: (name != BASELINE, name)):
        cls, required = load_method(name), name == BASELINE or bool(given.get(name))
        options = options_of(pretrained, name, given.get(name, {}))
        maps = {"log_maps": True} if "log_maps" in option_types(cls) else {}
        try:
            method = cls.from_options({**options, **maps})
            plan = method.plan(trunk)
        except LmmsCaError as error:
            if required:
                raise
            methods[name] = Declared(None, options, reason=str(error))
        else:
            if plan.observe is None:
                methods[name] = Declared(method, options, required)
            elif required:
                raise OptionError(f"--set {name}...: {name} answers as {BASELINE} and is not asked. Leave it out.")
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
            if declared.required or not isinstance(cause, LmmsCaError):
                raise
            outcomes[name] = Outcome(declared, reason=str(cause))
        else:
            outcomes[name] = Outcome(declared, found, declared.method.describe(engine.plan))
    return outcomes
