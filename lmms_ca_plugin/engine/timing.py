"""Times variants alone: a shared pass has no time per variant, so each answers some questions in runs of its own.

Rule: the variants take turns, batch by batch, in an order drawn anew each time, so that what else the machine does
falls on all of them; the first turn warms up and does not count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from statistics import median

import torch

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.requests import Request, RunOptions, batches
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.methods._contract import Method


def seconds_per_question(
    family: Family, methods: Mapping[str, Method], requests: list[Request], options: RunOptions
) -> dict[str, float]:
    """Measures every variant's time per question, from the picture to the answer.

    Args:
        family: The loaded checkpoint.
        methods: The variants.
        requests: What is asked; all variants answer the same.
        options: Batch size and seed.

    Returns:
        The median over the batches of seconds per question, by variant.
    """
    engines = {name: Engine(family, method, options, name) for name, method in methods.items()}
    draw = Random(options.seed)
    taken: dict[str, list[float]] = {name: [] for name in engines}
    turns = list(batches(requests, options.batch_size))
    for number, indices in enumerate([turns[0], *turns]):
        order = list(engines)
        draw.shuffle(order)
        for name in order:
            batch = [requests[i] for i in indices]
            _wait(family)
            start = time.perf_counter()
            engines[name].answer_batch([request.question for request in batch], batch[0].generation)
            _wait(family)
            if number:
                taken[name].append((time.perf_counter() - start) / len(batch))
    return {name: median(seconds) for name, seconds in taken.items()}


def _wait(family: Family) -> None:
    if family.model.device.type == "cuda":
        torch.cuda.synchronize(family.model.device)
