"""Batches made ready while the model computes the one before: pictures decoded and preprocessed, prompts written.

Rule: one batch ahead and no more. Beside a GPU a batch is dealt out to several threads, because a page takes one of
them longer than the model needs for an answer; each computes on one core, and half of all cores are left to the thread
that tells the GPU what to do. On a CPU one thread with one core does it: with a second team of threads there are more
than cores, and OpenMP has the model's sleep after every operation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import torch

from lmms_ca_plugin.devices import cores
from lmms_ca_plugin.families._contract import Inputs, Question

MOST_THREADS = 8


@dataclass(frozen=True)
class Ready:
    """A batch for which everything is done that needs no model.

    Attributes:
        questions: What is asked.
        inputs: It encoded; None where the method makes its inputs out of what the model sees.
    """

    questions: Sequence[Question]
    inputs: Inputs | None

    @classmethod
    def joined(cls, parts: Sequence[Ready], pad_token: int) -> Ready:
        """Joins the parts of a batch; see `Inputs.joined`."""
        questions = [question for part in parts for question in part.questions]
        inputs = [part.inputs for part in parts if part.inputs is not None]
        return cls(questions, Inputs.joined(inputs, pad_token) if inputs else None)


@dataclass(frozen=True)
class Spent:
    """Where the time of a run went, in seconds.

    Attributes:
        encoding: Decoding and preprocessing pictures, and tokens; most of it beside the model.
        waiting: How long the model waited for that.
    """

    encoding: float = 0.0
    waiting: float = 0.0


class Ahead:
    """Makes batches ready, in turn; a context, at whose end no thread is left, also after an exception.

    Args:
        turns: The batches.
        encode: Makes some questions of a batch ready.
        pad_token: Fills shorter prompts.
        beside_gpu: Whether the model leaves the cores to this.
    """

    def __init__(
        self,
        turns: Sequence[Sequence[Question]],
        encode: Callable[[Sequence[Question]], Ready],
        pad_token: int,
        beside_gpu: bool,
    ) -> None:
        self.spent = Spent()
        self._turns, self._encode, self._pad_token = turns, encode, pad_token
        self._threads = min(MOST_THREADS, max(1, cores() // 2)) if beside_gpu else 1
        self._next = 0
        self._coming: Future[tuple[Ready, float]] | None = None

    def __enter__(self) -> Self:
        """Begins with the first batch."""
        with ExitStack() as stack:
            self._encoders = stack.enter_context(ThreadPoolExecutor(self._threads, "encoding", _on_one_core))
            self._ahead = stack.enter_context(ThreadPoolExecutor(1, "ahead", _on_one_core))
            self._stack = stack.pop_all()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the threads."""
        self._stack.close()

    def take(self) -> Ready:
        """Waits for the next batch, and has the one behind it begun.

        Raises:
            InputError: One of its questions cannot be asked.
        """
        assert self._coming is not None  # one for every turn
        start = time.perf_counter()
        ready, seconds = self._coming.result()
        waited = time.perf_counter() - start
        self.spent = Spent(self.spent.encoding + seconds, self.spent.waiting + waited)
        self._begin()
        return ready

    def _begin(self) -> None:
        if self._next < len(self._turns):
            self._coming = self._ahead.submit(self._prepare, self._turns[self._next])
            self._next += 1

    def _prepare(self, questions: Sequence[Question]) -> tuple[Ready, float]:
        start = time.perf_counter()
        size = -(-len(questions) // self._threads)
        parts = [questions[first : first + size] for first in range(0, len(questions), size)]
        ready = Ready.joined(list(self._encoders.map(self._encode, parts)), self._pad_token)
        return ready, time.perf_counter() - start


def _on_one_core() -> None:
    torch.set_num_threads(1)
