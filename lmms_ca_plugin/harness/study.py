"""A study: many variants over tasks, and what came of it. `harness/runner.py` carries it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.methods._variant import Variant


@dataclass(frozen=True)
class Settings:
    """On which checkpoint and questions, and where to.

    Attributes:
        tasks: Names of tasks or groups.
        output: The folder that everything goes to.
        checkpoint: On what.
        inputs: How prompts and pictures are prepared.
        batch_size: Questions that pass the model together.
        seed: Of the subset, of sampling and of random masks.
        limit: Documents per task, a seeded subset that is the same for every variant; None takes all.
        memory_gib: What branches may use beside the weights, in each process; None measures.
        processes: How many answer, each with the checkpoint on a GPU of its own, or on its part of the cores; no answer
            depends on it.
    """

    tasks: tuple[str, ...]
    output: Path
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    inputs: InputOptions = field(default_factory=InputOptions)
    batch_size: int = 8
    seed: int = 0
    limit: int | None = None
    memory_gib: float | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """What is to be answered.

    Attributes:
        name: The study's name.
        variants: What is compared.
    """

    name: str
    variants: tuple[Variant, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What is asked, by name; `Runner.identity` adds what the names stand for."""
        return {
            "study": self.name,
            "variants": {v.name: {"method": v.method, **v.options} for v in self.variants},
            "checkpoint": asdict(self.checkpoint),
            "inputs": asdict(self.inputs),
            "tasks": list(self.tasks),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Finished:
    """What a study left.

    Attributes:
        study: The study, with the variants that came to an end.
        results: Every variant's results file.
        answers: Every variant's answers, by task and document; a part of a study also has those of the others.
        failed: Why variants came to none, by name; a part of a study also has those of the others.
    """

    study: Study
    results: Mapping[str, Path]
    answers: Mapping[str, Mapping[Key, Answer]]
    failed: Mapping[str, LmmsCaError] = field(default_factory=dict)

    def part(self, name: str, variants: Sequence[Variant]) -> Finished:
        """Takes some of the variants, as far as they came to an end, as a study of their own."""
        names = [variant.name for variant in variants]
        return Finished(
            replace(self.study, name=name, variants=tuple(v for v in variants if v.name in self.results)),
            {of: file for of, file in self.results.items() if of in names},
            self.answers,
            self.failed,
        )
