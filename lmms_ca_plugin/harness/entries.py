"""The harness's model classes: one per method and form, made on demand by the name that a manifest gives.

Rule, against a trap of lmms-eval 0.7.3: a failure in here ends the process with status 1. The harness catches every
`Exception`, prints it and exits with 0. More traps, those of its requests: `asked.py`.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Never

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from lmms_ca_plugin import options
from lmms_ca_plugin.checkpoints import options_of
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import GenerationError, InputError, LmmsCaError, OptionError
from lmms_ca_plugin.harness.asked import chat_question, generation_of, numbered, simple_question, whole_pictures
from lmms_ca_plugin.harness.record import cost, over_processes, run_record, weights_of
from lmms_ca_plugin.methods import MethodEntry, load_method, method_entries, model_ids


class Entry(lmms):  # type: ignore[misc]
    """A method on a checkpoint, as the harness sees it.

    Args:
        batch_size: Questions that pass the model together (the harness hands on `--batch_size`).
        max_batch_size: Refused; it belongs to `--batch_size auto`, which is not supported.
        given: Options of the checkpoint, the input, the run and the method, as in `--model_args`.
    """

    entry: ClassVar[MethodEntry]

    def __init__(self, batch_size: int | str = 1, max_batch_size: int | None = None, **given: Any) -> None:
        super().__init__()
        with ends_the_process():
            if max_batch_size is not None or batch_size == "auto":
                raise OptionError("batch_size=auto (and max_batch_size) is not supported. Allowed: a whole number.")
            method_class = load_method(self.entry.method)
            groups = options.split(given, (CheckpointOptions, InputOptions, RunOptions, method_class))
            checkpoint, inputs, run, method = groups
            fixed = sorted(set(method) & set(self.entry.options))
            if fixed:
                raise OptionError(
                    f"{self._called} stands for {fixed[0]}={self.entry.options[fixed[0]]}, so it takes no "
                    f"{fixed[0]}. Take {model_ids(self.entry.method)[0]} to set it."
                )
            carried_out = options.build(RunOptions, {**run, "batch_size": batch_size})
            if int(os.environ.get("WORLD_SIZE", "1")) > 1 and carried_out.trace is not None:
                carried_out = replace(carried_out, trace=f"{carried_out.trace}.rank{os.environ['RANK']}")
            self.checkpoint = options.build(CheckpointOptions, checkpoint)
            chosen = {**self.entry.options, **method}
            self.engine = Engine.load(
                self.entry.name,
                method_class.from_options(options_of(self.checkpoint.pretrained, self.entry.method, chosen)),
                self.checkpoint,
                options.build(InputOptions, inputs),
                carried_out,
                is_main=os.environ.get("RANK", "0") == "0",
            )
        self.seconds = 0.0
        self.samples = 0
        self.took: dict[str, Any] = {}  # by all processes, once all have answered

    @property
    def device(self) -> torch.device:
        """Where the harness gathers counts from several processes."""
        device: torch.device = self.engine.family.model.device
        return device

    @property
    def batch_sizes(self) -> dict[str, Any]:
        """The run's full record of settings and versions.

        The harness writes `list(batch_sizes.values())` into its result file as `config.batch_sizes`. It is the only
        thing of a model's own that it writes there.
        """
        engine = self.engine
        record = run_record(
            engine.family,
            engine.name,
            engine.method,
            engine.plan,
            engine.options,
            self.checkpoint,
            weights_of(self.checkpoint),
        )
        return {"lmms_ca": {**record, **self.took}}

    @property
    def chat_template(self) -> Never:
        """Refuses: the harness asks for it with `--apply_chat_template`, to write few-shot examples itself."""
        with ends_the_process():
            raise OptionError(
                "--apply_chat_template (and --fewshot_as_multiturn) is not supported: entries write prompts "
                "themselves. Leave it out; --model_args conversation=processor takes the checkpoint's own template."
            )
        raise AssertionError  # ends_the_process has ended it

    apply_chat_template = chat_template  # the name by which the harness asks once more

    def clean(self) -> None:
        """Adds up what all processes took, and keeps the model: one entry may serve several runs.

        The harness calls this once in every process when all have answered. It may not ask a process to generate at
        all, e.g. where its response cache holds every answer, so there is no other place where all meet; the record
        is read in the first process alone.
        """
        with ends_the_process():
            self.took = over_processes({**cost(self.engine.family, self.seconds), "samples": self.samples})

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers all requests of all tasks; one result per request, in their order."""
        with ends_the_process(), whole_pictures():
            real = [i for i, request in enumerate(requests) if not request.metadata.get("__padding_only__")]
            asked = numbered([self.request(requests[i]) for i in real])
            start = time.perf_counter()
            answers = self.engine.answer(asked)
            seconds = time.perf_counter() - start
            self.seconds, self.samples = self.seconds + seconds, self.samples + len(answers)
            tokens = sum(answer.new_tokens for answer in answers)
            log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, {"num_requests": len(answers)})
        # Processes with fewer documents get padding requests, whose answers the harness throws away.
        results = [GenerationResult(text="") for _ in requests]
        for i, answer in zip(real, answers, strict=True):
            results[i] = GenerationResult(answer.text, TokenCounts(answer.prompt_tokens, answer.new_tokens))
        return results

    @abstractmethod
    def request(self, request: Instance) -> Request:
        """Turns a request of the harness into one of the engine, which fetches its document when its turn has come."""

    def loglikelihood(self, requests: Sequence[Instance]) -> Never:
        """Refuses: the methods act on generation."""
        self._refuse("log-likelihoods", requests)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> Never:
        """Refuses: the methods are defined for one question and one answer."""
        self._refuse("several rounds", requests)

    @property
    def _called(self) -> str:
        return model_ids(self.entry.name)[0]

    def _refuse(self, what: str, requests: Sequence[Instance]) -> Never:
        with ends_the_process():
            raise InputError(f"task {requests[0].task_name} asks for {what}; {self._called} only generates an answer.")
        raise AssertionError  # ends_the_process has ended it


class ChatEntry(Entry):
    """The form that gets messages."""

    is_simple = False

    def request(self, request: Instance) -> Request:
        """Turns a request of the harness into one of the engine."""
        return Request(chat_question(request, self.task_dict), generation_of(request))


class SimpleEntry(Entry):
    """The form that gets a text and the pictures."""

    is_simple = True

    def request(self, request: Instance) -> Request:
        """Turns a request of the harness into one of the engine."""
        return Request(simple_question(request, self.task_dict), generation_of(request, place=1))


@contextmanager
def ends_the_process() -> Iterator[None]:
    """Turns any failure inside into a logged cause and exit status 1.

    `SystemExit` is no `Exception`, so the harness cannot swallow it.
    """
    try:
        yield
    except Exception as error:
        ours = isinstance(error, LmmsCaError)
        expected = ours and (not isinstance(error, GenerationError) or isinstance(error.__cause__, LmmsCaError))
        # A cause that nobody foresaw is shown with its traceback; a foreseen one says all in its message.
        logger.opt(exception=None if expected else error).error(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from error


def __getattr__(name: str) -> type[Entry]:
    form, _, wanted = name.partition("_")
    base = {"Chat": ChatEntry, "Simple": SimpleEntry}.get(form)
    found = [entry for entry in method_entries() if entry.name == wanted]
    if base is None or not found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (base,), {"entry": found[0], "__module__": __name__, "__doc__": f"{form} entry of {wanted}."})


__all__ = ["ChatEntry", "Entry", "SimpleEntry"]
