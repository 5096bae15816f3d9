"""A study carried out: all variants answered together, and for each the files that the harness would have written.

Rule: the harness asks and scores, once per variant, exactly as in a run of its own; only the answers come from the
journal, where one branched pass per batch has put those of all variants. So every verb reads a study's folders as it
reads the harness's.
Deviates: a variant has no time of its own in a shared pass, so its record holds none; `Runner.timed` measures it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from lmms_eval.api.instance import Instance

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.budget import GIB, budget_of
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.fingerprint import check_profiles, checkpoint_sha
from lmms_ca_plugin.engine.load import describe, load
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions
from lmms_ca_plugin.engine.selfcheck import complete
from lmms_ca_plugin.engine.timing import timed_alone
from lmms_ca_plugin.errors import CheckpointError, GenerationError, LmmsCaError, OptionError
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.harness.asked import chat_question, generation_of, whole_pictures
from lmms_ca_plugin.harness.journal import Journal, Key
from lmms_ca_plugin.harness.loaded import LoadedTasks, load_tasks
from lmms_ca_plugin.harness.record import device_of, run_record, versions
from lmms_ca_plugin.harness.replay import Replay, results_file, write_files
from lmms_ca_plugin.harness.study import Finished, Study
from lmms_ca_plugin.harness.timings import Timings
from lmms_ca_plugin.layer_profile import read_profile
from lmms_ca_plugin.methods._contract import Method


class Runner:
    """Carries out one study; what its journal holds is not computed again.

    Args:
        study: The study.
        leave_out: Whether variants that turn out not to fit the checkpoint's weights are left out.

    Raises:
        OptionError: A variant does not fit the checkpoint.
        CheckpointError: The checkpoint cannot be used.
        InputError: The output folder holds another study, or a variant goes by a layer profile of another checkpoint.
    """

    def __init__(self, study: Study, leave_out: bool = False) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise OptionError("A study runs in one process. To use several GPUs give device_map=auto.")
        self.study, self.leave_out = study, leave_out
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

    @cached_property
    def weights(self) -> str:
        """Digest of the checkpoint's weights; they need not be loaded for it."""
        return checkpoint_sha(self.study.checkpoint)

    @cached_property
    def tasks(self) -> LoadedTasks:
        """The tasks with their documents."""
        return load_tasks(self.study.tasks, self.study.limit, self.study.seed)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must not change between the parts of the study: what is asked, of which weights, and by what."""
        files = {name: method.profile_file for name, method in self.methods.items()}
        profiles = {name: asdict(read_profile(file)) for name, file in files.items() if file is not None}
        facts = {"weights": self.weights, "profiles": profiles, "versions": versions()}
        return {**self.study.identity, "questions": self.tasks.digest(), **facts}

    @property
    def memory_gib(self) -> float:
        """What branches may use beside the weights, GiB."""
        return budget_of(self.family, self.study.memory_gib) / GIB

    def run(self) -> Finished:
        """Answers what is missing, and writes every variant's files.

        A variant that shares no pass with others, and fails, leaves the others as they are.

        Raises:
            InputError: A task gives no score that could be compared.
            GenerationError: A question could not be answered; what was answered before is in the journal.
        """
        study = self.study
        results: dict[str, Path] = {}
        failed: dict[str, LmmsCaError] = {}
        self.tasks.check_scores()
        with Journal(study.output, self.identity, self.tasks.digest) as journal, whole_pictures():
            if self.leave_out:
                failed |= self._ruled_out(journal)
            for group in self._groups:
                names = [name for name in group if name not in failed]
                if not names:
                    continue
                try:
                    self._answer(journal, names)
                except (CheckpointError, GenerationError, OptionError) as error:
                    if not self._alone(group) or len(self._groups) == 1:
                        raise
                    failed |= dict.fromkeys(names, error)
                    continue
                results |= {name: self._scored(journal, name) for name in names}
            finished = replace(study, variants=tuple(v for v in study.variants if v.name in results))
            return Finished(finished, results, journal.answers, failed)

    def _ruled_out(self, journal: Journal) -> dict[str, LmmsCaError]:
        """Finds variants that do not fit the weights, as far as only the weights can tell."""
        found: dict[str, LmmsCaError] = {}
        for name, method in self.methods.items():
            plan = method.plan(self.found.trunk)
            if plan.probe is not None and not journal.answers.asked(name):
                try:
                    complete(self.family, plan)
                except LmmsCaError as error:
                    found[name] = error
        return found

    def _scored(self, journal: Journal, name: str) -> Path:
        """Writes a variant's files, unless they are there, of the same answers."""
        folder = self.study.output / name
        there = results_file(folder)
        if there is not None and journal.scored.get(name) == len(journal.answers.asked(name)):
            return there
        replay = Replay(journal.answers[name], journal.facts[name])
        file = write_files(replay, self.tasks, folder, journal.date, self.study.inputs)
        journal.know_scored(name)
        return file

    def timed(self, variants: Sequence[str], questions: int) -> Timings:
        """Runs variants alone on some questions of every task, and keeps what came of it.

        Args:
            variants: Names of variants.
            questions: How many of each task, drawn by the study's seed.

        Returns:
            Times and answers.
        """
        by_task: dict[str, list[Instance]] = {name: [] for name in self.tasks.tasks}
        for instance in self.tasks.instances():
            by_task[str(instance.task_name)].append(instance)
        asked = {task: self._some(of_task, questions) for task, of_task in by_task.items() if of_task}
        methods = {name: self.methods[name] for name in variants}
        with whole_pictures():
            found = timed_alone(self.family, methods, asked, self._options)
        timings = replace(self.timings, questions=questions, device=device_of(self.family), found=found)
        timings.keep(self.study.output)
        return timings

    @property
    def timings(self) -> Timings:
        """What was kept of how long variants took alone."""
        return Timings.kept(self.study.output, self.identity)

    def probed(self, questions: int) -> Probed:
        """Answers some questions under all variants, together as the study will, and throws the answers away.

        Args:
            questions: How many, drawn by the study's seed.

        Returns:
            How long it took, and how much there is to do.
        """
        asked = self._some(self.tasks.instances(), questions)
        with whole_pictures():
            fronts = [self._front(names) for names in self._groups]
            for front in fronts:  # the first batch warms up
                next(iter(front.answer(asked[: self.study.batch_size])))
            start = time.perf_counter()
            for front in fronts:
                for _ in front.answer(asked):
                    pass
            seconds = time.perf_counter() - start
        return Probed(len(asked), seconds, len(self.tasks.instances()))

    def _some(self, instances: list[Instance], questions: int) -> list[Request]:
        some = Random(self.study.seed).sample(instances, min(questions, len(instances)))
        return self._requests(some)

    def _requests(self, instances: Sequence[Instance]) -> list[Request]:
        return [Request(chat_question(i, self.tasks.documents), generation_of(i)) for i in instances]

    # ---- answers -----------------------------------------------------------------------------------------------------
    @property
    def _options(self) -> RunOptions:
        return RunOptions(self.study.batch_size, self.study.seed)

    @property
    def _groups(self) -> list[tuple[str, ...]]:
        """Variants that share their passes, and those that cannot share any."""
        alone = [name for name, method in self.methods.items() if method.makes_inputs]
        together = tuple(name for name in self.methods if name not in alone)
        return [*([together] if together else []), *((name,) for name in alone)]

    def _alone(self, names: Sequence[str]) -> bool:
        return any(self.methods[name].makes_inputs for name in names)

    def _front(self, names: Sequence[str]) -> Branched | Alone:
        methods = {name: self.methods[name] for name in names}
        if self._alone(names):
            ((name, method),) = methods.items()
            return Alone(self.family, method, self._options, name)
        return Branched(self.family, methods, self._options, self.study.memory_gib, self.study.name)

    def _answer(self, journal: Journal, names: Sequence[str]) -> None:
        """Answers what is missing of variants that share their passes."""
        done = set.intersection(*(journal.answers.asked(name) for name in names))
        missing = [i for i in self.tasks.instances() if _key(i) not in done]
        if not missing:
            return
        requests = self._requests(missing)
        front = self._front(names)
        for variant in (v for v in self.study.variants if v.name in names):
            method, plan = self.methods[variant.name], front.plans[variant.name]
            facts = run_record(
                self.family, variant.method, method, plan, self._options, self.study.checkpoint, self.weights
            )
            journal.know(variant.name, facts)
        for indices, answered in front.answer(requests):
            journal.write([_key(missing[i]) for i in indices], answered)


class Alone:
    """A variant that shares no pass, in the form of those that do."""

    def __init__(self, family: Family, method: Method, options: RunOptions, name: str) -> None:
        self.engine = Engine(family, method, options, name)
        self.plans = {name: self.engine.plan}

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


def _key(instance: Instance) -> Key:
    return (str(instance.task_name), int(instance.doc_id))
