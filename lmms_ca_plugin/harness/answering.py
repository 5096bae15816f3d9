"""What answers a study's questions: its tasks, its variants and the loaded checkpoint; one in every process.

Rule: several processes share the batches that one would answer, in turn, so that how many they are changes no answer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import torch
from lmms_eval.api.instance import Instance

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.budget import GIB, budget_of
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.fingerprint import check_profiles, checkpoint_sha
from lmms_ca_plugin.engine.load import describe, load
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions, share
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.harness.asked import chat_question, generation_of, whole_pictures
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.loaded import LoadedTasks, load_tasks
from lmms_ca_plugin.harness.record import run_record
from lmms_ca_plugin.harness.study import Study


@dataclass(frozen=True)
class Began:
    """What answers, before it does.

    Attributes:
        facts: By variant, the record of the run that its files carry.
    """

    facts: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Answered:
    """A batch.

    Attributes:
        asked: Task and document of every question.
        answers: Every variant's answers to these.
    """

    asked: Sequence[Key]
    answers: Mapping[str, Sequence[Answer]]


Told = Began | Answered


class Answering:
    """Answers a study's questions in this process.

    Args:
        study: The study.

    Raises:
        OptionError: A variant does not fit the checkpoint, or two have one name.
        CheckpointError: The checkpoint cannot be used.
        InputError: A variant goes by a layer profile of another checkpoint.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.methods = {variant.name: variant.made() for variant in study.variants}
        if len(self.methods) < len(study.variants):
            raise OptionError(f"Study {study.name}: two variants have one name: {', '.join(self.methods)}.")
        self.found = describe(study.checkpoint)
        for method in self.methods.values():
            method.plan(self.found.trunk)
        check_profiles(self.methods.values(), study.checkpoint)

    @cached_property
    def family(self) -> Family:
        """The loaded checkpoint; it is loaded when something is to be computed."""
        return load(self.found, self.study.inputs)

    def unload(self) -> None:
        """Frees the checkpoint's memory for other processes; it is loaded again when it is needed."""
        self.__dict__.pop("family", None)
        gc.collect()
        torch.cuda.empty_cache()

    @cached_property
    def weights(self) -> str:
        """Digest of the checkpoint's weights; they need not be loaded for it."""
        return checkpoint_sha(self.study.checkpoint)

    @cached_property
    def tasks(self) -> LoadedTasks:
        """The tasks with their documents."""
        return load_tasks(self.study.tasks, self.study.limit, self.study.seed)

    @property
    def memory_gib(self) -> float:
        """What branches may use beside the weights, GiB."""
        return budget_of(self.family, self.study.memory_gib) / GIB

    @property
    def options(self) -> RunOptions:
        """How every variant is run."""
        return RunOptions(self.study.batch_size, self.study.seed)

    # ---- variants ----------------------------------------------------------------------------------------------------
    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Variants that share their passes, and those that cannot share any."""
        alone = [name for name, method in self.methods.items() if method.makes_inputs]
        together = tuple(name for name in self.methods if name not in alone)
        return [*([together] if together else []), *((name,) for name in alone)]

    def alone(self, names: Sequence[str]) -> bool:
        """Whether a group is a variant that cannot share its passes."""
        return any(self.methods[name].makes_inputs for name in names)

    def _front(self, names: Sequence[str], is_main: bool = True) -> Branched | Alone:
        methods = {name: self.methods[name] for name in names}
        if self.alone(names):
            ((name, method),) = methods.items()
            return Alone(Engine(self.family, method, self.options, name, is_main=is_main))
        return Branched(self.family, methods, self.options, self.study.memory_gib, self.study.name, is_main)

    # ---- questions ---------------------------------------------------------------------------------------------------
    def answers(
        self, names: Sequence[str], keys: Collection[Key], place: int = 0, processes: int = 1
    ) -> Generator[Told]:
        """Answers questions under variants that share their passes, batch by batch.

        Args:
            names: The variants.
            keys: Task and document of every question.
            place: Which of several processes this is; each answers its share of the batches.
            processes: How many they are.

        Yields:
            What answers, then the batches; nothing where there is no question.

        Raises:
            GenerationError: A question could not be answered; the message names it.
        """
        among = set(keys)
        instances = [instance for instance in self.tasks.instances() if key_of(instance) in among]
        every = self.requests(instances)
        own = share(every, self.study.batch_size, place, processes)
        requests, asked = [every[i] for i in own], [key_of(instances[i]) for i in own]
        if not requests:
            return
        front = self._front(names, is_main=processes == 1)
        yield Began({name: self._facts(name, front) for name in names})
        for indices, answered in front.answer(requests):
            yield Answered([asked[i] for i in indices], answered)

    def requests(self, instances: Sequence[Instance]) -> list[Request]:
        """Turns requests of the harness into those of the engine."""
        return [Request(chat_question(i, self.tasks.documents), generation_of(i)) for i in instances]

    def some(self, instances: Sequence[Instance], questions: int) -> list[Request]:
        """Draws some questions by the study's seed."""
        drawn = Random(self.study.seed).sample(instances, min(questions, len(instances)))
        return self.requests(drawn)

    def probed(self, questions: int) -> Probed:
        """Answers some questions under all variants, together as the study will, and throws the answers away.

        Args:
            questions: How many, drawn by the study's seed.

        Returns:
            How long it took, and how much there is to do.
        """
        asked = self.some(self.tasks.instances(), questions)
        with whole_pictures():
            fronts = [self._front(names) for names in self.groups]
            for front in fronts:  # the first batch warms up
                next(iter(front.answer(asked[: self.study.batch_size])))
            start = time.perf_counter()
            for front in fronts:
                for _ in front.answer(asked):
                    pass
            seconds = time.perf_counter() - start
        return Probed(len(asked), seconds, len(self.tasks.instances()))

    def _facts(self, name: str, front: Branched | Alone) -> dict[str, Any]:
        (variant,) = (variant for variant in self.study.variants if variant.name == name)
        return run_record(
            self.family,
            variant.method,
            self.methods[name],
            front.plans[name],
            self.options,
            self.study.checkpoint,
            self.weights,
        )


class Alone:
    """A variant that shares no pass, in the form of those that do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.plans = {engine.name: engine.plan}

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], dict[str, list[Answer]]]]:
        """Answers questions batch by batch; see `Branched.answer`."""
        for indices, answers in self.engine.each_batch(requests):
            yield indices, {self.engine.name: answers}


@dataclass(frozen=True)
class Probed:
    """What a probe of a study found.

    Attributes:
        questions: How many were answered, under all variants.
        seconds: How long that took.
        all_questions: How many the study has.
    """

    questions: int
    seconds: float
    all_questions: int

    @property
    def hours(self) -> float:
        """How long the study takes at this rate."""
        return self.seconds / self.questions * self.all_questions / 3600


def key_of(instance: Instance) -> Key:
    """Names a question."""
    return (str(instance.task_name), int(instance.doc_id))
