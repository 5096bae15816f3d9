"""Options of a checkpoint and of several methods, as people type them: `device=cuda`, `contrastive.review_layer=9`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmms_ca_plugin import options
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.errors import OptionError, nearest, unknown
from lmms_ca_plugin.methods import method_names


@dataclass(frozen=True)
class Settings:
    """What was set.

    Attributes:
        checkpoint: Which checkpoint, and how it is held.
        inputs: How prompts and pictures are prepared.
        methods: Options as typed, by method; methods without any are left out.
    """

    checkpoint: CheckpointOptions
    inputs: InputOptions
    methods: dict[str, dict[str, str]]

    @classmethod
    def read(cls, pretrained: str, given: Sequence[str]) -> Settings:
        """Sorts options by what they belong to.

        Args:
            pretrained: The checkpoint.
            given: `name=value` for checkpoint and inputs, `method.name=value` for a method.

        Returns:
            The settings; a method's options are checked when the method is built.

        Raises:
            OptionError: No `=`, an unknown name or method, or a value that is not allowed.
        """
        general = {"pretrained": pretrained}
        known = {**options.option_types(CheckpointOptions), **options.option_types(InputOptions)}
        methods: dict[str, dict[str, str]] = {}
        for text in given:
            name, equals, value = text.partition("=")
            method, dot, option = name.rpartition(".")
            if not equals or not name:
                raise OptionError(f"--set {text}: give NAME=VALUE, or METHOD.NAME=VALUE for an option of a method.")
            if dot and method not in method_names():
                raise unknown("method", method, method_names())
            if not dot and name not in known:
                raise OptionError(
                    f"--set {text}: no option '{name}'.{nearest(name, known)} Allowed: {', '.join(sorted(known))}. "
                    "An option of a method is METHOD.NAME=VALUE."
                )
            (methods.setdefault(method, {}) if dot else general)[option] = value
        checkpoint, inputs = options.split(general, (CheckpointOptions, InputOptions))
        return cls(options.build(CheckpointOptions, checkpoint), options.build(InputOptions, inputs), methods)
