"""What a method declares: what it reads, where it edits. It installs nothing; the engine attaches and removes.

A method is one file; the file name is its name; `METHOD` in it is a frozen dataclass of its options with the paper's
defaults. `plan` turns the options and the trunk's facts into a `Plan`, before any weight is loaded. One plan serves a
plain run, a sweep and the trace. A method whose answers rest on passes of its own has `prepare`: it asks the engine for
them and returns new inputs.

Axis letters: b samples, s prompt positions, k positions so far, h heads, r queries that are edited, e hidden size,
n new tokens so far, v vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from lmms_ca_plugin import options
from lmms_ca_plugin.families._contract import Family, Prompt, Question, Trunk
from lmms_ca_plugin.methods._passes import Passes, Prepared

Site = Literal["residual", "post_norm", "kv", "value", "scores", "weights", "added"]


@dataclass(frozen=True)
class Read:
    """A wish to know one block's attention, or the states that enter it (before any edit of that block).

    Attributes:
        block: The 0-based decoder block.
        kind: `"attention"`: post-softmax weights of the last prompt token, mean over heads, (b, s). `"hidden"`: the
            states entering the block; at block 0 the merged embeddings. `"relative"`: |those states| over their root
            mean square, in at least float32; no value can exceed sqrt(e).
        rows: At which positions states are read: the `"last"` of the pass or the `"first"` real token, (b, e); `"all"`,
            (b, s, e).
        dims: Which hidden dimensions are kept, in place of all e; states at all positions are never kept whole.
        every_step: Whether states are read in every pass, the newest in place of the earlier, or in the prefill alone.
    """

    block: int
    kind: Literal["attention", "hidden", "relative"] = "attention"
    rows: Literal["last", "first", "all"] = "last"
    dims: tuple[int, ...] | None = None
    every_step: bool = False

    def __post_init__(self) -> None:
        if self.kind == "attention" and (self.rows, self.dims, self.every_step) != ("last", None, False):
            raise ValueError("Attention is read at the last prompt token, in the prefill: no rows, dims, steps.")
        if self.rows == "all" and self.dims is None:
            raise ValueError("States of all positions take memory that grows with the prompt: name the dims to keep.")
        if self.every_step and self.rows != "last":
            raise ValueError("A decoding step has one position: states of every step are read at rows='last'.")


Reads = Mapping[Read, Tensor]


@dataclass(frozen=True)
class Decision:
    """What an edit decided for a batch.

    Attributes:
        values: (b, s). At site `scores`: added to the attention logits of these keys, for every query that is not an
            image token, in the prefill and at every decoding step. At site `weights`: what the edit's `reweigh` has to
            know of these keys; (b, s, t) for t things. At the other sites: factors on the features of these positions,
            applied once, in the prefill. 0 (`scores`, `weights`) and 1 (the others) are the values that change nothing.
        log: One record per sample for the trace. Whole numbers in it may be tensors (), to be fetched when all is
            computed; to fetch them at once waits for a GPU in the middle of a pass.
    """

    values: Tensor
    log: tuple[dict[str, Any], ...]

    def of(self, samples: Sequence[int]) -> Decision:
        """What was decided for some samples of the batch."""
        return Decision(self.values[list(samples)], tuple(self.log[i] for i in samples))


@dataclass(frozen=True)
class Edit:
    """A change at one site of one block.

    Attributes:
        block: The 0-based decoder block.
        site: `residual`: the hidden states entering the block. `post_norm`: the input of its attention. `kv`, `value`:
            its keys and values, or its values alone, as they are cached. `scores`: its attention logits. `weights`: its
            attention weights, by a function of themselves. `added`: what the model adds to the states after the block.
        decide: A pure function of the reads up to the block's own input, and the prompt; called once, in the prefill.
        reweigh: At site `weights`, and only there: a pure function of the block's own post-softmax weights, in at least
            float32, (b, h, r, k), and the decision's values (b, k) or (b, k, t), 0 at new keys. It returns the weights
            (b, h, r, k) that take their place, as they are: a row that shall sum to 1 must. The r queries are the
            prompt's after its last image token, and every new token; rows of other queries, which may be among the r,
            keep what the kernel gave them.
    """

    block: int
    site: Site
    decide: Callable[[Reads, Prompt], Decision]
    reweigh: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if (self.reweigh is not None) != (self.site == "weights"):
            raise ValueError(f"Site 'weights' needs a reweigh function, any other takes none; got '{self.site}'.")

    @property
    def on_attention(self) -> bool:
        """Whether it edits what attention weighs by, rather than states, keys or values."""
        return self.site in ("scores", "weights")

    @property
    def neutral(self) -> float:
        """The value that changes nothing at this site."""
        return 0.0 if self.on_attention else 1.0


@dataclass(frozen=True)
class Scores:
    """What the next token is taken by, in place of the logits.

    Attributes:
        values: (b, v); minus infinity where a token may not be taken.
        log: One record per sample for the trace; each entry becomes a list with one element per new token.
    """

    values: Tensor
    log: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Plan:
    """All that a method does to a run.

    Attributes:
        reads: What edits and `rescore` need to know.
        edits: What is changed inside the trunk.
        rescore: What is changed behind it, at every step: a pure function of the final logits (b, v), the reads, the
            new tokens so far (b, n), and the family, for its norm and head.
        probe: What must be known of the loaded weights before the plan is complete.
        observe: What a plan that changes nothing logs of its reads, once, behind the prompt's pass: a pure function of
            the reads and the prompt, with one record per sample.
        settled: The values that it took for options which leave something to the checkpoint, by option; for the record.
    """

    reads: tuple[Read, ...] = ()
    edits: tuple[Edit, ...] = ()
    rescore: Callable[[Tensor, Reads, Tensor, Family], Scores] | None = None
    probe: Probe | None = None
    observe: Callable[[Reads, Prompt], tuple[dict[str, Any], ...]] | None = None
    settled: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.observe is not None and (self.edits or self.rescore):
            raise ValueError("A plan that observes changes nothing; edits and `rescore` log by themselves.")

    def first_block(self, num_blocks: int) -> int:
        """The block at which a run under this plan leaves the baseline: the lowest edited; `num_blocks` if none is."""
        return min((edit.block for edit in self.edits), default=num_blocks)

    def shared_reads(self, num_blocks: int) -> tuple[Read, ...]:
        """The reads whose prefill no edit of this plan can have changed, so that the baseline's are its own."""
        first = self.first_block(num_blocks)
        return tuple(r for r in self.reads if r.block < first or (r.block == first and r.kind != "attention"))


@dataclass(frozen=True)
class Probe:
    """Reads of one small prompt, the self-check's, once at load: the same for every sample and every batch.

    Attributes:
        reads: What is read.
        complete: Makes the plan that is run; raises a `CheckpointError` if the checkpoint lacks what the method needs.
    """

    reads: tuple[Read, ...]
    complete: Callable[[Reads], Plan]


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

    @property
    def makes_inputs(self) -> bool:
        """Whether it answers other inputs than those that were asked; then no pass can be shared with it."""
        return type(self).prepare is not Method.prepare

    @property
    def profile_file(self) -> str | None:
        """The layer profile (JSON) that it goes by, if any; a profile fits no other weights than its own."""
        return None

    def prepare(self, questions: Sequence[Question], passes: Passes) -> Prepared | None:  # noqa: ARG002
        """Makes other inputs for the answering pass, out of passes of its own.

        Args:
            questions: The batch, as asked.
            passes: The way to ask the model.

        Returns:
            The new inputs, or None to answer the questions as they are.
        """
        return None

    def describe(self, plan: Plan) -> dict[str, Any]:
        """Lists every option with its value, for the trace and the results.

        Args:
            plan: Its plan on a checkpoint, with what was left to that.
        """
        return {f.name: getattr(self, f.name) for f in fields(self)} | dict(plan.settled)
