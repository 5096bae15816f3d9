"""Several processes whose results are read as they come.

Rule: the first failure ends all of them, and none outlives the one that reads, however that ends. The processes are new
ones, because one that was forked cannot use a GPU.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any, TypeVar

from lmms_ca_plugin.errors import GenerationError, LmmsCaError

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Failed:
    """What ended a process.

    Attributes:
        error: If it was foreseen; it says all in its message.
        trace: Where it came from.
    """

    error: LmmsCaError | None
    trace: str


def gathered(produce: Callable[..., Iterable[Result]], arguments: Sequence[tuple[Any, ...]]) -> Generator[Result]:
    """Calls a function in several processes and passes on what it yields.

    Args:
        produce: A function of a module; what it takes and yields can be pickled.
        arguments: For each process, what its call gets.

    Yields:
        What the calls yield, those of one process in their order.

    Raises:
        LmmsCaError: As a call raised it.
        GenerationError: A process ended without a word.
        RuntimeError: A call failed in a way that nobody foresaw.
    """
    with _started(produce, arguments) as running:
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                try:
                    told = connection.recv()
                except EOFError:
                    _check_ended(running.pop(connection))
                    continue
                if isinstance(told, _Failed):
                    raise told.error or RuntimeError(f"A process failed:\n{told.trace}")
                yield told


@contextmanager
def _started(
    produce: Callable[..., Iterable[Any]], arguments: Sequence[tuple[Any, ...]]
) -> Iterator[dict[Connection, SpawnProcess]]:
    """Starts the processes, by where they are heard; at the end none is left."""
    context = get_context("spawn")
    running: dict[Connection, SpawnProcess] = {}
    started: list[SpawnProcess] = []
    try:
        for given in arguments:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(sender, produce, given), daemon=True)
            # A stop from the keyboard is sent to all; this process ends the others, which from their first import on
            # would say that they were stopped. A signal that is blocked here stays so in what is started.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            sender.close()  # the process holds the only other one, so that its end is noticed
            running[receiver] = process
            started.append(process)
        yield running
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _check_ended(process: SpawnProcess) -> None:
    process.join()
    if process.exitcode:
        raise GenerationError(
            f"A process ended with status {process.exitcode} and said nothing; -9 is often the system's doing, where "
            "memory ran out. What was answered is kept: take fewer processes, and run the same again."
        )


# ---- in each process -------------------------------------------------------------------------------------------------
def _send(sender: Connection, produce: Callable[..., Iterable[Any]], given: tuple[Any, ...]) -> None:
    Thread(target=_end_with_reader, daemon=True).start()
    try:
        for one in produce(*given):
            sender.send(one)
    except Exception as error:  # whatever it is, the process that reads must be told
        sender.send(_Failed(error if isinstance(error, LmmsCaError) else None, traceback.format_exc()))
    sender.close()


def _end_with_reader() -> None:
    """Ends this process when the one that reads is gone, killed perhaps: a GPU's memory would stay taken."""
    reader = parent_process()
    assert reader is not None
    wait([reader.sentinel])
    os._exit(1)
