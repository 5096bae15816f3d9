"""Several processes whose results are read as they come.

Rule: the first failure ends all of them, and none outlives the one that reads, however that ends. A process is done
when it says so; one that ends before has failed, whatever its status. They are new ones, because one that was forked
cannot use a GPU, and they get their work when all have been started, because it may be larger than a pipe.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any, TypeVar

from lmms_ca_plugin.errors import LmmsCaError, ProcessError

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


class _Done:
    """Nothing more comes from a process."""


def gathered(produce: Callable[..., Iterable[Result]], arguments: Sequence[tuple[Any, ...]]) -> Generator[Result]:
    """Calls a function in several processes and passes on what it yields.

    Args:
        produce: A function of a module; what it takes and yields can be pickled.
        arguments: For each process, what its call gets.

    Yields:
        What the calls yield, those of one process in their order.

    Raises:
        LmmsCaError: As a call raised it.
        ProcessError: A process ended without a word.
        RuntimeError: A call failed in a way that nobody foresaw.
    """
    with _started(len(arguments)) as running:
        for connection, given in zip(running, arguments, strict=True):
            with suppress(OSError):  # it has ended already, which is noticed below
                connection.send((produce, given))
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                try:
                    told = ready.recv()
                except (EOFError, OSError) as error:  # the second in the middle of a message
                    raise _ended(running[ready]) from error
                if isinstance(told, _Done):
                    del running[ready]
                elif isinstance(told, _Failed):
                    raise told.error or RuntimeError(f"A process failed:\n{told.trace}")
                else:
                    yield told


@contextmanager
def _started(number: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Starts processes, by where they are heard; at the end none is left."""
    context = get_context("spawn")
    running: dict[Connection, SpawnProcess] = {}
    started: list[SpawnProcess] = []
    try:
        with _deaf_to_the_keyboard():
            for _ in range(number):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there,), daemon=True)
                process.start()
                started.append(process)
                there.close()  # the process holds the only other one, so that its end is noticed
                running[here] = process
        yield running
    finally:
        for process in started:
            process.kill()  # it has nothing to save, and may be deaf to less
        for process in started:
            process.join()


@contextmanager
def _deaf_to_the_keyboard() -> Iterator[None]:
    """Puts a stop from the keyboard off, for good in what is started meanwhile.

    A terminal sends it to all processes. The one that reads ends the others, which would only say where they were.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(process: SpawnProcess) -> ProcessError:
    process.join(timeout=10)
    why = "Its last words are above, if it had any."
    if process.exitcode == -signal.SIGKILL:
        why = "The system does so where memory ran out: take fewer processes."
    return ProcessError(
        f"A process ended with status {process.exitcode} before it was done. {why} What was answered is kept: run the "
        "same again."
    )


# ---- in each process -------------------------------------------------------------------------------------------------
def _work(reader: Connection) -> None:
    Thread(target=_end_with_reader, daemon=True).start()
    try:
        produce, given = reader.recv()
        for one in produce(*given):
            reader.send(one)
        reader.send(_Done())
    except Exception as error:  # whatever it is, the process that reads must be told
        reader.send(_Failed(error if isinstance(error, LmmsCaError) else None, traceback.format_exc()))


def _end_with_reader() -> None:
    """Ends this process when the one that reads is gone, killed perhaps: a GPU's memory would stay taken."""
    reader = parent_process()
    assert reader is not None
    wait([reader.sentinel])
    os._exit(1)
