"""What processes do in tests of the pool; in a module that they can import, and at once."""

import os
import signal
import time
from pathlib import Path

from lmms_ca_plugin.errors import MemoryLimitError


def counts(place, number):
    for i in range(number):
        yield place, i


def sleeps(folder):
    """Writes down who it is, and has no end of its own."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
    yield


def waits_for_others(folder, number):
    """Until so many have written down who they are."""
    while len(list(Path(folder).iterdir())) < number:
        time.sleep(0.01)


def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    yield "went on"


def dies(folder):
    yield "alive"
    waits_for_others(folder, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def fails(folder, kind):
    waits_for_others(folder, 1)
    if kind == "foreseen":
        raise MemoryLimitError("too small")
    yield 1 / 0


def either(what, *given):
    yield from {"sleeps": sleeps, "dies": dies, "fails": fails}[what](*given)
