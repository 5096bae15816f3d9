"""What every front of the engine does with questions: deals them into batches, answers each, names what fails.

Questions of several tasks are answered together: each keeps its own task, split, document and settings. They are
grouped by their settings, sorted by length, longest first, and answered a batch at a time.

Rule: while the model computes a batch, the next one is made ready (`engine/ahead.py`).
"""

from __future__ import annotations

import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from tqdm import tqdm

from lmms_ca_plugin.engine.ahead import Ahead, Ready, Spent
from lmms_ca_plugin.engine.decode import cut
from lmms_ca_plugin.engine.generation import Generation, NewTokens
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions, batches, sample_seed
from lmms_ca_plugin.errors import GenerationError, InputError, MemoryLimitError
from lmms_ca_plugin.families._contract import Family, Inputs, Prompt, Question

OfOne = TypeVar("OfOne")  # what is answered to one question
ALLOC_FAILED = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")  # PyTorch has no exception of their own


class Front(ABC, Generic[OfOne]):
    """A loaded checkpoint that answers questions.

    Args:
        family: The loaded checkpoint.
        options: How runs are carried out.
        name: For the progress bar and for messages.
        is_main: Whether this process shows progress.
    """

    def __init__(self, family: Family, options: RunOptions, name: str, is_main: bool) -> None:
        self.family = family
        self.options = options
        self.name = name
        self.is_main = is_main
        tokenizer, settings = family.processor.tokenizer, family.model.generation_config
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        self.end_tokens = frozenset(token for token in (*ends, tokenizer.eos_token_id) if token is not None)
        self._most: int | None = None  # questions that have fitted a GPU's memory, once some have not
        self._said = False
        self.spent = Spent()  # by the last `each_batch`, so far

    @abstractmethod
    def _answer_together(
        self, questions: Sequence[Question], generation: Generation, inputs: Inputs | None
    ) -> list[OfOne]:
        """Answers questions that share their settings, in one batch; see `Ready` for the inputs."""

    def _encode(self, questions: Sequence[Question]) -> Ready:
        """Does for some questions of a batch what needs no model; may be called by several threads at a time."""
        return Ready(questions, self.family.encode(questions))

    # ---- batches -----------------------------------------------------------------------------------------------------
    def each_batch(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], list[OfOne]]]:
        """Answers questions, batch by batch, with a progress bar.

        Args:
            requests: Questions with their settings.

        Yields:
            Indices into `requests`, and what was answered to each.

        Raises:
            GenerationError: A question could not be answered; the message names it.
        """
        turns = list(batches(requests, self.options.batch_size))
        asked = [[requests[i].question for i in indices] for indices in turns]
        pad_token, on_cpu = self.family.processor.tokenizer.pad_token_id, self.family.model.device.type == "cpu"
        with (
            tqdm(total=len(requests), desc=self.name, unit="question", disable=not self.is_main) as progress,
            Ahead(asked, self._encode, pad_token, beside_gpu=not on_cpu) as ahead,
        ):
            for indices in turns:
                try:
                    ready = ahead.take()
                    self.spent = ahead.spent
                    answered = self._answer_fitting(ready.questions, requests[indices[0]].generation, ready.inputs)
                except Exception as error:  # any failure at all must name its documents, and must not become an answer
                    names = "; ".join(requests[i].question.name for i in indices)
                    raise GenerationError(
                        f"{self.name} failed at [{names}]: {type(error).__name__}: {error}"
                    ) from error
                yield indices, answered
                progress.update(len(indices))

    def _answer_now(self, questions: Sequence[Question], generation: Generation) -> list[OfOne]:
        """Answers one batch alone: nothing is done ahead of it."""
        ready = self._encode(questions)
        return self._answer_fitting(ready.questions, generation, ready.inputs)

    def _answer_fitting(
        self, questions: Sequence[Question], generation: Generation, inputs: Inputs | None
    ) -> list[OfOne]:
        """Answers a batch; what does not fit into memory is halved and tried again."""
        size = len(questions)
        if self._most is None or size <= self._most:
            try:
                return self._answer_together(questions, generation, inputs)
            except (MemoryLimitError, RuntimeError) as error:
                if size == 1 or not (isinstance(error, MemoryLimitError) or _is_out_of_memory(error)):
                    raise
                self._say_once(f"{self.name}: a batch of {size} does not fit and is halved. {error}")
                if not isinstance(error, MemoryLimitError):
                    self._most = size - size // 2  # what a GPU refuses costs a pass each time it is tried
            # Tried again behind the handler: the exception holds on to the tensors of the pass that failed.
            gc.collect()
            torch.cuda.empty_cache()
        half = size - size // 2
        first, second = (None, None) if inputs is None else (inputs.part(0, half), inputs.part(half, size))
        return [
            *self._answer_fitting(questions[:half], generation, first),
            *self._answer_fitting(questions[half:], generation, second),
        ]

    def _say_once(self, message: str) -> None:
        if not self._said:
            tqdm.write(message, file=sys.stderr)
            self._said = True

    # ---- what all batches need ---------------------------------------------------------------------------------------
    def prompt(self, inputs: Inputs) -> Prompt:
        """Runs the vision side of a batch and seeds its samples."""
        with torch.inference_mode():
            prompt = self.family.embed(inputs)
        return replace(prompt, seeds=tuple(sample_seed(self.options.seed, question) for question in inputs.questions))

    def check_length(self, inputs: Inputs, generation: Generation) -> None:
        """Refuses a batch whose prompts leave no room for the answer.

        Raises:
            InputError: A prompt with the new tokens is longer than the trunk has positions.
        """
        positions, bound = self.family.trunk.max_positions, self.family.inputs.max_pixels
        smaller = "" if bound is None else f", or for smaller pictures (max_pixels={bound} now)"
        for question, length in zip(inputs.questions, inputs.attention_mask.sum(-1).tolist(), strict=True):
            if length + generation.max_new_tokens > positions:
                raise InputError(
                    f"{question.name}: a prompt of {length} tokens and max_new_tokens={generation.max_new_tokens} do "
                    f"not fit the language model's max_position_embeddings={positions}. Ask for fewer new tokens"
                    f"{smaller}."
                )

    def to_text(self, tokens: list[int]) -> str:
        """Turns token ids into text."""
        text: str = self.family.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def answer_of(
        self, prompt: Prompt, tokens: Sequence[NewTokens], generation: Generation, logs: Sequence[dict[str, Any]]
    ) -> list[Answer]:
        """Makes answers of the new tokens and the log of every sample of a batch."""
        lengths, image_tokens = prompt.attention_mask.sum(-1).tolist(), prompt.is_image.sum(-1).tolist()
        answers = []
        for new, length, images, log in zip(tokens, lengths, image_tokens, logs, strict=True):
            text, stopped = cut(self.to_text(new.ids), generation.until)
            runaway = not (new.ended or stopped)
            answers.append(Answer(text.strip(), length, images, len(new.ids), log, runaway=runaway, margin=new.margin))
        return answers


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory was too small for what was asked."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(name in str(error) for name in ALLOC_FAILED)
