"""The harness's model classes: one per method and form, made on demand by the name that a manifest gives.

Rules, each against a trap of lmms-eval 0.7.3:
- A failure in here ends the process with status 1. The harness catches every `Exception`, prints it and exits with 0.
- Every request asks its own task for its own document. (Entries that take the batch's first task get wrong pictures.)
- Generation kwargs are never changed. (The response cache uses them as its key.)
- Half a picture is refused. (The harness has Pillow fill up truncated files in grey.)
- What the chat form would drop in silence (system instruction, description, few-shot examples) is refused.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Never

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from PIL import Image, ImageFile

from lmms_ca_plugin import options
from lmms_ca_plugin.engine.engine import Engine, Request, RunOptions
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.errors import GenerationError, InputError, LmmsCaError, OptionError
from lmms_ca_plugin.families._contract import Message, Question
from lmms_ca_plugin.harness.record import run_record
from lmms_ca_plugin.methods import MethodEntry, load_method, method_entries


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
                    f"llava_{self.entry.name} stands for {fixed[0]}={self.entry.options[fixed[0]]}, so it takes no "
                    f"{fixed[0]}. Take llava_{self.entry.method} to set it."
                )
            if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "trace" in run:
                run["trace"] = f"{run['trace']}.rank{os.environ['RANK']}"
            self.engine = Engine.load(
                self.entry.name,
                method_class.from_options({**self.entry.options, **method}),
                options.build(CheckpointOptions, checkpoint),
                options.build(InputOptions, inputs),
                options.build(RunOptions, {**run, "batch_size": batch_size}),
                is_main=os.environ.get("RANK", "0") == "0",
            )
        self.seconds = 0.0
        self.samples = 0

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
        return {"lmms_ca": run_record(self.engine, self.seconds, self.samples)}

    def clean(self) -> None:
        """Keeps the model: the harness calls this after each generation, and one entry may serve several runs."""

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers all requests of all tasks; one result per request, in their order."""
        with ends_the_process(), whole_pictures():
            real = [i for i, request in enumerate(requests) if not request.metadata.get("__padding_only__")]
            asked = [Request(self.question(requests[i]), self.generation(requests[i])) for i in real]
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
    def question(self, request: Instance) -> Question:
        """Turns a request into a question that fetches its document when its turn has come."""

    def generation(self, request: Instance) -> Generation:
        """Reads a request's generation kwargs."""
        try:
            return Generation.from_kwargs(self.kwargs(request))
        except OptionError as error:
            raise OptionError(f"task {request.task_name}: {error}") from error

    @abstractmethod
    def kwargs(self, request: Instance) -> dict[str, Any]:
        """Finds the generation kwargs among a request's arguments."""

    def loglikelihood(self, requests: Sequence[Instance]) -> Never:
        """Refuses: the methods act on generation."""
        self._refuse("log-likelihoods", requests)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> Never:
        """Refuses: the methods are defined for one question and one answer."""
        self._refuse("several rounds", requests)

    def _refuse(self, what: str, requests: Sequence[Instance]) -> Never:
        with ends_the_process():
            raise InputError(
                f"task {requests[0].task_name} asks for {what}; llava_{self.entry.name} only generates an answer."
            )
        raise AssertionError  # ends_the_process has ended it


class ChatEntry(Entry):
    """The form that gets messages."""

    is_simple = False

    def question(self, request: Instance) -> Question:
        """Turns a request into a question; see `Entry.question`."""
        context, to_messages, _kwargs, doc_id, task, split = request.args

        def conversation() -> tuple[Message, ...]:
            messages = to_messages(self.task_dict[task][split][doc_id])
            turns = tuple(_message(message) for message in messages)
            text = turns[-1].text
            if context != text and context.endswith(text):
                raise InputError(
                    "the chat form would drop the system instruction, description or few-shot examples that the "
                    f"harness put before the question: {context[: -len(text)]!r}. Run with --force_simple."
                )
            return turns

        return Question(task, split, doc_id, conversation, len(context))

    def kwargs(self, request: Instance) -> dict[str, Any]:
        """Finds the generation kwargs among a request's arguments."""
        kwargs: dict[str, Any] = request.args[2]
        return kwargs


class SimpleEntry(Entry):
    """The form that gets a text and the pictures."""

    is_simple = True

    def question(self, request: Instance) -> Question:
        """Turns a request into a question; see `Entry.question`."""
        context, _kwargs, to_visual, doc_id, task, split = request.args

        def conversation() -> tuple[Message, ...]:
            visuals = to_visual(self.task_dict[task][split][doc_id]) or []
            return (Message("user", context, tuple(_picture(visual) for visual in visuals)),)

        return Question(task, split, doc_id, conversation, len(context))

    def kwargs(self, request: Instance) -> dict[str, Any]:
        """Finds the generation kwargs among a request's arguments."""
        kwargs: dict[str, Any] = request.args[1]
        return kwargs


def _message(message: dict[str, Any]) -> Message:
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    strange = [part["type"] for part in parts if part["type"] not in ("text", "image")]
    if strange:
        raise InputError(f"it shows {strange[0]}; only text and pictures are supported.")
    pictures = tuple(_picture(part["url"]) for part in parts if part["type"] == "image")
    return Message(message["role"], "\n".join(part["text"] for part in parts if part["type"] == "text"), pictures)


def _picture(visual: Any) -> Image.Image:
    if isinstance(visual, str):
        visual = Image.open(visual)
    if not isinstance(visual, Image.Image):
        raise InputError(f"it shows a {type(visual).__name__}; only pictures are supported.")
    visual.load()
    return visual


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


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Has Pillow refuse truncated files, as it does outside the harness."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def __getattr__(name: str) -> type[Entry]:
    form, _, wanted = name.partition("_")
    base = {"Chat": ChatEntry, "Simple": SimpleEntry}.get(form)
    found = [entry for entry in method_entries() if entry.name == wanted]
    if base is None or not found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (base,), {"entry": found[0], "__module__": __name__, "__doc__": f"{form} entry of {wanted}."})


__all__ = ["ChatEntry", "Entry", "SimpleEntry"]
