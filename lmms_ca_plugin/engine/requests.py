"""What is asked of the engine and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Question


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        batch_size: Questions that pass the model together.
        seed: Seeds sampling and `mask_by=random`, together with task, document and repeat.
        trace: A file for one JSON line per sample: what the method decided, and token counts.
    """

    batch_size: int = 1
    seed: int = 0
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size} is not allowed. Allowed: 1 and more.")
        if self.trace == "":
            raise OptionError("trace= is not allowed. Allowed: a file, like trace.jsonl, or None.")


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
        first_block: The block at which its own passes began: 0 for a run of its own, else where its branch left the
            baseline; the number of blocks if it did not.
        same_as: The variant whose branch this is: both decided the same for this sample. None if it has its own.
        runaway: Whether it reached the most tokens it may have, without an end.
        margin: The least by which a greedy choice beat the next best; see `generation.NewTokens`.
    """

    text: str
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    log: dict[str, Any]
    first_block: int = 0
    same_as: str | None = None
    runaway: bool = False
    margin: float | None = field(default=None, compare=False)  # another batch rounds it otherwise


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


def share(requests: Sequence[Request], size: int, place: int, processes: int) -> list[int]:
    """Chooses the requests of one of several processes, so that their batches are together those of one process.

    Args:
        requests: In the order asked.
        size: The most requests of a batch.
        place: Which process, from 0.
        processes: How many they are.

    Returns:
        Indices into `requests`, batch after batch; dealt into batches again they give the same ones.
    """
    return [i for indices in list(batches(requests, size))[place::processes] for i in indices]


def sample_seed(seed: int, question: Question) -> int:
    """Makes one whole number below 2^63 of a run's seed and a question's task, document and repeat."""
    drawn_from = f"{seed}|{question.task}|{question.doc_id}"
    if question.repeat:  # the first draw is the one of a run without repeats
        drawn_from += f"|{question.repeat}"
    digest = hashlib.sha256(drawn_from.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
