"""How long each of several variants takes alone, and what it answers then.

Rule: the variants take turns, batch by batch, in an order drawn anew each time, so that whatever else the machine does
falls on all of them; a task's first turn warms up and does not count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from lmms_ca_plugin.devices import wait_for
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.requests import Answer, Request, RunOptions, batches
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.methods._contract import Method


@dataclass(frozen=True)
class Timed:
    """A variant in a run of its own.

    Attributes:
        seconds: The median over the batches of seconds per question, from the picture to the answer.
        answers: By task and document.
    """

    seconds: float
    answers: Mapping[tuple[str, int], Answer]


def timed_alone(
    family: Family, methods: Mapping[str, Method], requests: Mapping[str, Sequence[Request]], options: RunOptions
) -> dict[str, dict[str, Timed]]:
    """Runs every variant alone, on one task after the other.

    Args:
        family: The loaded checkpoint.
        methods: The variants.
        requests: What is asked, by task, of each something; all variants answer the same.
        options: Batch size and seed.

    Returns:
        Times and answers, by variant and task.
    """
    engines = {name: Engine(family, method, options, name) for name, method in methods.items()}
    found: dict[str, dict[str, Timed]] = {name: {} for name in engines}
    for task, of_task in requests.items():
        for name, timed in _timed(family, engines, of_task, options).items():
            found[name][task] = timed
    return found


def _timed(
    family: Family, engines: Mapping[str, Engine], requests: Sequence[Request], options: RunOptions
) -> dict[str, Timed]:
    device, draw = family.model.device, Random(options.seed)
    taken: dict[str, list[float]] = {name: [] for name in engines}
    answers: dict[str, dict[tuple[str, int], Answer]] = {name: {} for name in engines}
    turns = list(batches(requests, options.batch_size))
    for number, indices in enumerate([turns[0], *turns]):
        order = list(engines)
        draw.shuffle(order)
        questions = [requests[i].question for i in indices]
        keys = [(question.task, question.doc_id) for question in questions]
        for name in order:
            wait_for(device)
            start = time.perf_counter()
            answered = engines[name].answer_batch(questions, requests[indices[0]].generation)
            wait_for(device)
            if number:
                taken[name].append((time.perf_counter() - start) / len(questions))
                answers[name].update(zip(keys, answered, strict=True))
    return {name: Timed(median(seconds), answers[name]) for name, seconds in taken.items()}
