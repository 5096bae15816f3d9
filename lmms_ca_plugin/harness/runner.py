"""A study carried out: all variants answered together, and for each the files that the harness would have written.

Rule: the harness asks and scores, once per variant, exactly as in a run of its own; only the answers come from the
journal, where one branched pass per batch has put those of all variants. So every verb reads a study's folders as it
reads the harness's.
Deviates: a variant has no time of its own in a shared pass, so its record holds none; `Runner.timed` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance

from lmms_ca_plugin.engine.selfcheck import complete
from lmms_ca_plugin.engine.timing import timed_alone
from lmms_ca_plugin.errors import CheckpointError, GenerationError, LmmsCaError, OptionError
from lmms_ca_plugin.harness.answering import Answering, Began, key_of
from lmms_ca_plugin.harness.asked import whole_pictures
from lmms_ca_plugin.harness.journal import Journal
from lmms_ca_plugin.harness.processes import check_processes, spread
from lmms_ca_plugin.harness.record import device_of, versions
from lmms_ca_plugin.harness.replay import Replay, results_file, write_files
from lmms_ca_plugin.harness.study import Finished, Study
from lmms_ca_plugin.harness.timings import Timings
from lmms_ca_plugin.layer_profile import read_profile


class Runner:
    """Carries out one study; what its journal holds is not computed again.

    Args:
        study: The study.
        leave_out: Whether variants that turn out not to fit the checkpoint's weights are left out.

    Attributes:
        answering: Its questions and variants in this process.

    Raises:
        OptionError: A variant does not fit the checkpoint, or there cannot be so many processes.
        CheckpointError: The checkpoint cannot be used.
        InputError: The output folder holds another study, or a variant goes by a layer profile of another checkpoint.
    """

    def __init__(self, study: Study, leave_out: bool = False) -> None:
        self.study, self.leave_out = study, leave_out
        self.answering = Answering(study)
        check_processes(study, self.answering.found)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must not change between the parts of the study: what is asked, of which weights, and by what."""
        files = {name: method.profile_file for name, method in self.answering.methods.items()}
        profiles = {name: asdict(read_profile(file)) for name, file in files.items() if file is not None}
        facts = {"weights": self.answering.weights, "profiles": profiles, "versions": versions()}
        return {**self.study.identity, "questions": self.answering.tasks.digest(), **facts}

    def run(self) -> Finished:
        """Answers what is missing, and writes every variant's files.

        A variant that shares no pass with others, and fails, leaves the others as they are.

        Raises:
            InputError: A task gives no score that could be compared.
            GenerationError: A question could not be answered; what was answered before is in the journal.
            ProcessError: A process ended without a word; the same holds.
        """
        study = self.study
        results: dict[str, Path] = {}
        failed: dict[str, LmmsCaError] = {}
        tasks, groups = self.answering.tasks, self.answering.groups
        tasks.check_scores()
        with Journal(study.output, self.identity, tasks.digest) as journal, whole_pictures():
            if self.leave_out:
                failed |= self._ruled_out(journal)
            for group in groups:
                names = [name for name in group if name not in failed]
                if not names:
                    continue
                try:
                    self._answer(journal, names)
                except (CheckpointError, GenerationError, OptionError) as error:
                    if not self.answering.alone(group) or len(groups) == 1:
                        raise
                    failed |= dict.fromkeys(names, _without_frames(error))
                    continue
                results |= {name: self._scored(journal, name) for name in names}
            finished = replace(study, variants=tuple(v for v in study.variants if v.name in results))
            return Finished(finished, results, journal.answers, failed)

    def _ruled_out(self, journal: Journal) -> dict[str, LmmsCaError]:
        """Finds variants that do not fit the weights, as far as only the weights can tell."""
        found: dict[str, LmmsCaError] = {}
        for name, method in self.answering.methods.items():
            plan = method.plan(self.answering.found.trunk)
            if plan.probe is not None and not journal.answers.asked(name):
                try:
                    complete(self.answering.family, plan)
                except LmmsCaError as error:
                    found[name] = _without_frames(error)
        return found

    def _answer(self, journal: Journal, names: Sequence[str]) -> None:
        """Answers what is missing of variants that share their passes."""
        done = set.intersection(*(journal.answers.asked(name) for name in names))
        missing = [key for key in map(key_of, self.answering.tasks.instances()) if key not in done]
        if not missing:
            return
        if self.study.processes > 1:
            self.answering.unload()
            answers = spread(self.study, self.answering.found.device, names, missing)
        else:
            answers = self.answering.answers(names, missing)
        with closing(answers):  # ends what computes them, should the journal fail
            for told in answers:
                if isinstance(told, Began):
                    for name, facts in told.facts.items():
                        journal.know(name, facts)
                else:
                    journal.write(told.asked, told.answers)

    def _scored(self, journal: Journal, name: str) -> Path:
        """Writes a variant's files, unless they are there, of the same answers."""
        folder = self.study.output / name
        there = results_file(folder)
        if there is not None and journal.scored.get(name) == len(journal.answers.asked(name)):
            return there
        replay = Replay(journal.answers[name], journal.facts[name])
        file = write_files(replay, self.answering.tasks, folder, journal.date, self.study.inputs)
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
        answering = self.answering
        by_task: dict[str, list[Instance]] = {name: [] for name in answering.tasks.tasks}
        for instance in answering.tasks.instances():
            by_task[str(instance.task_name)].append(instance)
        asked = {task: answering.some(of_task, questions) for task, of_task in by_task.items() if of_task}
        methods = {name: answering.methods[name] for name in variants}
        with whole_pictures():
            found = timed_alone(answering.family, methods, asked, answering.options)
        timings = replace(self.timings, questions=questions, device=device_of(answering.family), found=found)
        timings.keep(self.study.output)
        return timings

    @property
    def timings(self) -> Timings:
        """What was kept of how long variants took alone."""
        return Timings.kept(self.study.output, self.identity)


def _without_frames(error: LmmsCaError) -> LmmsCaError:
    """An error to be kept: the frames that it came through hold on to the loaded checkpoint, and its memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
