"""Several processes that answer one study, each with the checkpoint on a GPU of its own, or on its part of the cores.

Rule: a process answers its share of the batches and sends them here as they are done; the journal has one writer, and
what comes of a failure, a stop or a resumption is what it is with one process.
Deviates from a launcher's processes (`accelerate launch -m lmms_eval`), which all run the whole command.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Collection, Generator, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import replace
from threading import RLock

import torch
from loguru import logger
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from lmms_ca_plugin.devices import LOCAL_PROCESSES, cores
from lmms_ca_plugin.engine.load import Checkpoint
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness.answering import Answered, Answering, Told
from lmms_ca_plugin.harness.asked import whole_pictures
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.pool import gathered
from lmms_ca_plugin.harness.study import Study


def check_processes(study: Study, found: Checkpoint) -> None:
    """Refuses a number of processes that this computer or the checkpoint's place does not allow.

    Raises:
        OptionError: That, or a launcher has started this process among others.
    """
    processes, options = study.processes, study.checkpoint
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("A study starts its processes itself. Run it without a launcher, and give --processes.")
    on_cpu = found.device.type == "cpu"
    for name, value in {"device": options.device, "device_map": options.device_map}.items():
        if processes > 1 and value is not None and not on_cpu:
            raise OptionError(
                f"processes={processes} and {name}={value}: each process takes a GPU of its own. Give one of the two; "
                "CUDA_VISIBLE_DEVICES says which GPUs there are."
            )
    most = max(1, cores() if on_cpu else torch.cuda.device_count())
    if not 1 <= processes <= most:
        what = "cores" if on_cpu else "GPUs"
        raise OptionError(
            f"processes={processes} is not allowed. Allowed: 1 to {most}, the {what} that PyTorch may use here."
        )
    kinds = dict.fromkeys(map(torch.cuda.get_device_name, range(0 if on_cpu or processes == 1 else processes)))
    if len(kinds) > 1:
        raise OptionError(
            f"processes={processes} would mix answers of {' and '.join(kinds)}, which round otherwise. Have "
            "CUDA_VISIBLE_DEVICES name GPUs of one kind."
        )


def spread(study: Study, device: torch.device, names: Sequence[str], keys: Collection[Key]) -> Generator[Told]:
    """Answers questions in the study's number of processes, with a progress bar.

    Args:
        study: The study.
        device: Where one process would hold the checkpoint.
        names: Variants that share their passes.
        keys: Task and document of every question.

    Yields:
        As `Answering.answers`: what answers, of every process, and the batches of all, as they come.

    Raises:
        GenerationError: A question could not be answered.
        ProcessError: A process ended without a word.
    """
    number = min(study.processes, math.ceil(len(keys) / study.batch_size))  # there are at least so many batches
    shares = [(_placed(study, device, place), names, keys, place, number) for place in range(number)]
    title = f"{study.name}, {number} processes"
    with closing(gathered(_answers, shares)) as told, tqdm(total=len(keys), desc=title, unit="question") as progress:
        for one in told:
            yield one
            if isinstance(one, Answered):
                progress.update(len(one.asked))


def _placed(study: Study, device: torch.device, place: int) -> Study:
    """The study as one of its processes runs it: on a GPU of its own where there are any."""
    checkpoint = study.checkpoint
    if device.type != "cpu":
        checkpoint = replace(checkpoint, device=f"{device.type}:{place}")
    return replace(study, processes=1, checkpoint=checkpoint)


def _answers(study: Study, names: Sequence[str], keys: Collection[Key], place: int, number: int) -> Generator[Told]:
    """Answers a share, in a process of its own."""
    os.environ[LOCAL_PROCESSES] = str(number)
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    tqdm.set_lock(RLock())  # its own one is shared with other processes, and would outlive this one, which is killed
    answering = Answering(study)
    if answering.found.device.type == "cuda":
        torch.cuda.set_device(answering.found.device)
    # Bars of several processes at a time cannot be read, and what the harness logs the process that reads has logged.
    disable_progress_bar()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    with redirect_stderr(io.StringIO()):
        answering.tasks.instances()
    with whole_pictures():
        yield from answering.answers(names, keys, place, number)
