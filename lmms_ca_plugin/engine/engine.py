"""The engine's front: questions in, answers out, in the order they were asked.

Questions of several tasks are answered together: each keeps its own task, split, document and settings. They are
grouped by their settings, sorted by length, longest first, and answered a batch at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from lmms_ca_plugin.engine import beams
from lmms_ca_plugin.engine.decode import cut, decode
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.engine.passes import MapPasses
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import complete, self_check
from lmms_ca_plugin.engine.trace import Trace
from lmms_ca_plugin.errors import GenerationError, InputError, OptionError
from lmms_ca_plugin.families._contract import Family, Inputs, Prompt, Question
from lmms_ca_plugin.methods._contract import Method


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        batch_size: Questions that pass the model together.
        seed: Seeds sampling and `mask_by=random`, together with task and document.
        trace: A file for one JSON line per sample: what the method decided, and token counts.
    """

    batch_size: int = 1
    seed: int = 0
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size} is not allowed. Allowed: 1 and more.")


@dataclass(frozen=True)
class Request:
    """A question with the settings its task asks for."""

    question: Question
    generation: Generation


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        text: The answer, cut at the stop texts and stripped.
        prompt_tokens: Tokens of the prompt, image tokens among them.
        image_tokens: Image tokens of the prompt, newlines among them.
        new_tokens: Tokens generated, the end token not counted.
        log: What the method decided for this sample.
    """

    text: str
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    log: dict[str, Any]


class Engine:
    """A loaded checkpoint with one method.

    Args:
        family: The loaded checkpoint.
        method: The method; its plan must fit the checkpoint.
        options: How runs are carried out.
        name: The entry's name, for the progress bar and the trace.
        trace: Where records go, if anywhere.
        is_main: Whether this process shows progress.
    """

    def __init__(
        self,
        family: Family,
        method: Method,
        options: RunOptions,
        name: str = "vanilla",
        trace: Trace | None = None,
        is_main: bool = True,
    ) -> None:
        self.family = family
        self.method = method
        self.options = options
        self.name = name
        self.is_main = is_main
        self.plan = complete(family, method.plan(family.trunk))
        self.trace = trace
        self_check(family, self.plan)
        tokenizer, settings = family.processor.tokenizer, family.model.generation_config
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        self.end_tokens = frozenset(token for token in (*ends, tokenizer.eos_token_id) if token is not None)

    @classmethod
    def load(
        cls,
        name: str,
        method: Method,
        checkpoint: CheckpointOptions,
        inputs: InputOptions,
        options: RunOptions,
        **more: Any,
    ) -> Engine:
        """Opens a checkpoint; whatever does not fit is refused before its weights are read.

        Raises:
            OptionError: The method's options do not fit the checkpoint.
            CheckpointError: The checkpoint cannot be used.
        """
        found = describe(checkpoint)
        method.plan(found.trunk)
        trace = None if options.trace is None else Trace(options.trace)
        return cls(load(found, inputs), method, options, name, trace, **more)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers questions, batch by batch, with a progress bar.

        Args:
            requests: Questions with their settings.

        Returns:
            One answer per request, in the same order.

        Raises:
            GenerationError: A question could not be answered; the message names it. What was answered before is in the
                trace, if there is one.
        """
        answers: dict[int, Answer] = {}
        with tqdm(total=len(requests), desc=self.name, unit="question", disable=not self.is_main) as progress:
            for indices in batches(requests, self.options.batch_size):
                batch = [requests[i] for i in indices]
                answers.update(
                    zip(indices, self._answer_named([r.question for r in batch], batch[0].generation), strict=True)
                )
                progress.update(len(batch))
        return [answers[i] for i in range(len(requests))]

    def _answer_named(self, questions: list[Question], generation: Generation) -> list[Answer]:
        try:
            return self.answer_batch(questions, generation)
        except Exception as error:  # any failure at all must name its documents, and must not become an answer
            names = "; ".join(question.name for question in questions)
            advice = " Try a smaller batch_size." if isinstance(error, torch.cuda.OutOfMemoryError) else ""
            raise GenerationError(
                f"{self.name} failed at [{names}]: {type(error).__name__}: {error}{advice}"
            ) from error

    def answer_batch(self, questions: Sequence[Question], generation: Generation) -> list[Answer]:
        """Answers questions that share their settings, in one batch, and writes the trace."""
        passes = MapPasses(self.family, lambda inputs: self._check_length(inputs, generation))
        prepared = self.method.prepare(questions, passes)
        inputs = self.family.encode(questions) if prepared is None else prepared.inputs
        self._check_length(inputs, generation)
        prompt = self.prompt(inputs)
        run = Run(self.family, self.plan, prompt, generation.max_new_tokens)
        tokenizer = self.family.processor.tokenizer

        def to_text(tokens: list[int]) -> str:
            text: str = tokenizer.decode(tokens, skip_special_tokens=True)
            return text

        with run.attached():
            if generation.num_beams > 1:
                tokens = beams.search(run, generation, self.end_tokens, tokenizer.pad_token_id)
            else:
                tokens = decode(run, generation, self.end_tokens, to_text)
        lengths, image_tokens = prompt.padding.sum(-1).tolist(), prompt.is_image.sum(-1).tolist()
        answers = [
            Answer(cut(to_text(new), generation.until)[0].strip(), length, images, len(new), edits | steps)
            for new, length, images, edits, steps in zip(
                tokens, lengths, image_tokens, run.log, run.step_log(tokens), strict=True
            )
        ]
        if prepared is not None:
            answers = [replace(a, log=own | a.log) for own, a in zip(prepared.log, answers, strict=True)]
        if self.trace is not None:
            self.trace.write(self._record(q, a) for q, a in zip(questions, answers, strict=True))
        return answers

    def prompt(self, inputs: Inputs) -> Prompt:
        """Runs the vision side of a batch and seeds its samples."""
        with torch.inference_mode():
            prompt = self.family.embed(inputs)
        return replace(prompt, seeds=tuple(sample_seed(self.options.seed, question) for question in inputs.questions))

    def _check_length(self, inputs: Inputs, generation: Generation) -> None:
        positions = self.family.trunk.max_positions
        for question, length in zip(inputs.questions, inputs.padding.sum(-1).tolist(), strict=True):
            if length + generation.max_new_tokens > positions:
                raise InputError(
                    f"{question.name}: a prompt of {length} tokens and max_new_tokens={generation.max_new_tokens} do "
                    f"not fit the language model's max_position_embeddings={positions}. Ask for fewer new tokens."
                )

    def _record(self, question: Question, answer: Answer) -> dict[str, Any]:
        return {
            "task": question.task,
            "split": question.split,
            "doc_id": question.doc_id,
            "method": self.name,
            "parameters": self.method.describe(),
            "seed": self.options.seed,
            **answer.log,
            "prompt_tokens": answer.prompt_tokens,
            "image_tokens": answer.image_tokens,
            "new_tokens": answer.new_tokens,
            "answer": answer.text,
        }


def batches(requests: Sequence[Request], size: int) -> Iterator[list[int]]:
    """Deals requests into batches of the same settings and of similar length, longest first.

    Args:
        requests: In the order asked.
        size: The most requests of a batch.

    Yields:
        Indices into `requests`.
    """
    settings = {generation: i for i, generation in enumerate(dict.fromkeys(r.generation for r in requests))}

    def group(index: int) -> int:
        return settings[requests[index].generation]

    order = sorted(range(len(requests)), key=lambda i: (group(i), -requests[i].question.length, i))
    for _, members in groupby(order, key=group):
        indices = list(members)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def sample_seed(seed: int, question: Question) -> int:
    """Makes one whole number below 2^63 of a run's seed and a question's task and document."""
    digest = hashlib.sha256(f"{seed}|{question.task}|{question.doc_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
