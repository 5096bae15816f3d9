"""A study: many variants over tasks, answered together, and for each the files that the harness would have written.

Rule: the harness asks and scores, once per variant, exactly as in a run of its own; only the answers come from the
journal, where one branched pass per batch has put those of all variants. So every verb reads a study's folders as it
reads the harness's.
Deviates: a variant has no time of its own in a shared pass, so its record holds none; `Runner.timed` measures it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from lmms_eval.api.instance import Instance

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions
from lmms_ca_plugin.engine.timing import seconds_per_question
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.harness.asked import chat_question, generation_of, whole_pictures
from lmms_ca_plugin.harness.journal import Journal, Key
from lmms_ca_plugin.harness.loaded import LoadedTasks, load_tasks
from lmms_ca_plugin.harness.record import run_record
from lmms_ca_plugin.harness.replay import Replay, write_files
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
    """

    name: str
    method: str
    options: Mapping[str, Any]
    x: float | None = None

    def made(self) -> Method:
        """Makes the method.

        Raises:
            OptionError: An option that it does not have or does not allow.
        """
        return load_method(self.method).from_options(self.options)


@dataclass(frozen=True)
class Study:
    """What is to be answered, and where to.

    Attributes:
        name: The study's name.
        variants: What is compared.
        checkpoint: On what.
        inputs: How prompts and pictures are prepared.
        tasks: Names of tasks or groups.
        output: A folder of its own.
        batch_size: Questions that pass the model together.
        seed: Of the subset, of sampling and of random masks.
        limit: Documents per task, a seeded subset that is the same for every variant; None takes all.
        memory_gib: What branches may use beside the weights; None measures.
    """

    name: str
    variants: tuple[Variant, ...]
    checkpoint: CheckpointOptions
    inputs: InputOptions
    tasks: tuple[str, ...]
    output: Path
    batch_size: int = 8
    seed: int = 0
    limit: int | None = None
    memory_gib: float | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between the parts of a study, by name."""
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
        study: The study.
        results: Every variant's results file.
        answers: Every variant's answers, by task and document.
    """

    study: Study
    results: Mapping[str, Path]
    answers: Mapping[str, Mapping[Key, Answer]]

    def part(self, name: str, variants: Sequence[Variant]) -> Finished:
        """Takes some of the variants as a study of their own."""
        names = [variant.name for variant in variants]
        return Finished(
            replace(self.study, name=name, variants=tuple(variants)),
            {of: self.results[of] for of in names},
            {of: self.answers[of] for of in names},
        )


class Runner:
    """Carries out one study; what its journal holds is not computed again.

    Args:
        study: The study.

    Raises:
        OptionError: A variant does not fit the checkpoint.
        CheckpointError: The checkpoint cannot be used.
        InputError: The output folder holds another study.
    """

    def __init__(self, study: Study) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise OptionError("A study runs in one process. To use several GPUs give device_map=auto.")
        self.study = study
        self.methods = {variant.name: variant.made() for variant in study.variants}
        if len(self.methods) < len(study.variants):
            raise OptionError(f"Study {study.name}: two variants have one name: {', '.join(self.methods)}.")
        self.found = describe(study.checkpoint)
        for method in self.methods.values():
            method.plan(self.found.trunk)

    @cached_property
    def family(self) -> Family:
        """The loaded checkpoint; it is loaded when something is to be computed."""
        return load(self.found, self.study.inputs)

    def run(self) -> Finished:
        """Answers what is missing, and writes every variant's files.

        Raises:
            GenerationError: A question could not be answered; what was answered before is in the journal.
        """
        study = self.study
        with Journal(study.output, study.identity) as journal, whole_pictures():
            tasks = load_tasks(study.tasks, study.limit, study.seed)
            self._answer(tasks, journal)
            results = {}
            for variant in study.variants:
                replay = Replay(journal.answers[variant.name], journal.facts[variant.name])
                results[variant.name] = write_files(replay, tasks, study.output / variant.name, journal.date)
            return Finished(study, results, journal.answers)

    def timed(self, questions: int) -> dict[str, float]:
        """Times every variant alone on some of the study's questions, which takes as many runs as there are variants.

        Args:
            questions: How many, drawn by the study's seed.

        Returns:
            Seconds per question, by variant.
        """
        tasks = load_tasks(self.study.tasks, self.study.limit, self.study.seed)
        some = Random(self.study.seed).sample(instances := tasks.instances(), min(questions, len(instances)))
        requests = [Request(chat_question(i, tasks.documents), generation_of(i)) for i in some]
        with whole_pictures():
            return seconds_per_question(self.family, self.methods, requests, self._options)

    @property
    def _options(self) -> RunOptions:
        return RunOptions(self.study.batch_size, self.study.seed)

    def _answer(self, tasks: LoadedTasks, journal: Journal) -> None:
        instances = tasks.instances()
        together = {name: method for name, method in self.methods.items() if not method.makes_inputs}
        alone = {name: method for name, method in self.methods.items() if method.makes_inputs}
        for names in [tuple(together), *((name,) for name in alone)]:
            missing = [i for i in instances if any(_key(i) not in journal.answers[name] for name in names)]
            if not names or not missing:
                continue
            requests = [Request(chat_question(i, tasks.documents), generation_of(i)) for i in missing]
            for indices, answered in self._answers(names, requests, journal):
                journal.write([_key(missing[i]) for i in indices], answered)

    def _answers(self, names: Sequence[str], requests: Sequence[Request], journal: Journal) -> Any:
        """Yields indices into the requests, and for every named variant the answers to these."""
        options = self._options
        methods = {name: self.methods[name] for name in names}
        for name, method in methods.items():
            entry = next(v.method for v in self.study.variants if v.name == name)
            journal.know(name, run_record(self.family, entry, method, options, self.study.checkpoint))
        if any(method.makes_inputs for method in methods.values()):
            ((name, method),) = methods.items()
            engine = Engine(self.family, method, options, name)
            for indices, answers in engine.each_batch(requests):
                yield indices, {name: answers}
        else:
            yield from Branched(self.family, methods, options, self.study.memory_gib, self.study.name).answer(requests)


def _key(instance: Instance) -> Key:
    return (str(instance.task_name), int(instance.doc_id))


__all__ = ["Finished", "Runner", "Study", "Variant"]
