"""What a method declares: what it reads, where it edits. It installs nothing; the engine attaches and removes.

A method is one file; the file name is its name; `METHOD` in it is a frozen dataclass of its options with the paper's
defaults. `plan` turns the options and the trunk's facts into a `Plan`, before any weight is loaded. One plan serves a
plain run, a sweep and the trace.

Axis letters: b samples, s prompt positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from lmms_ca_plugin import options
from lmms_ca_plugin.families._contract import Prompt, Trunk

Site = Literal["residual", "post_norm", "kv", "value", "scores"]


@dataclass(frozen=True)
class Read:
    """A wish to know one block's attention.

    Attributes:
        block: The 0-based decoder block.
        kind: `"attention"`: post-softmax weights of the last prompt token, mean over heads, (b, s).
    """

    block: int
    kind: Literal["attention"] = "attention"


Reads = Mapping[Read, Tensor]


@dataclass(frozen=True)
class Decision:
    """What an edit decided for a batch.

    Attributes:
        values: (b, s). At site `scores`: added to the attention logits of these keys, for every query that is not an
            image token, in the prefill and at every decoding step. At the other sites: factors on the features of
            these positions, applied once, in the prefill. 0 and 1 are the values that change nothing.
        log: One record per sample for the trace.
    """

    values: Tensor
    log: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Edit:
    """A change at one site of one block.

    Attributes:
        block: The 0-based decoder block.
        site: `residual`: the hidden states entering the block. `post_norm`: the input of its attention. `kv`, `value`:
            its keys and values, or its values alone, as they are cached. `scores`: its attention logits.
        decide: A pure function of the reads below the block and the prompt.
    """

    block: int
    site: Site
    decide: Callable[[Reads, Prompt], Decision]

    @property
    def neutral(self) -> float:
        """The value that changes nothing at this site."""
        return 0.0 if self.site == "scores" else 1.0


@dataclass(frozen=True)
class Plan:
    """All that a method does to a run.

    Attributes:
        reads: What the edits need to know.
        edits: What is changed.
    """

    reads: tuple[Read, ...] = ()
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Method(ABC):
    """Base of the methods; its fields are the options that a user may set.

    Attributes:
        presets: Named sets of options; a method that has some also has a field `preset`.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Self:
        """Builds the method from options as people type them; what is given wins over its preset.

        Raises:
            OptionError: An unknown option or a value that is not allowed.
        """
        preset = options.build(cls, {k: v for k, v in given.items() if k == "preset"})
        return options.build(cls, {**cls.presets.get(getattr(preset, "preset", ""), {}), **given})

    @abstractmethod
    def plan(self, trunk: Trunk) -> Plan:
        """Declares reads and edits for a trunk.

        Args:
            trunk: The facts of the checkpoint's language model.

        Returns:
            The plan.

        Raises:
            OptionError: The options do not fit the trunk.
        """

    def describe(self) -> dict[str, Any]:
        """Lists every option with its value, for the trace and the results."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
