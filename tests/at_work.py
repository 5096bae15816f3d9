"""What processes do in tests of the pool; in a module that they can import, and at once."""

import gc
import os
import signal
import struct
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from lmms_ca_plugin.errors import MemoryLimitError


def counts(place, number):
    for i in range(number):
        yield place, i


def sizes(turns, what):
    yield from (len(what) for _ in turns)


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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started by ignores
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


def leaves(folder):
    """As code of a task may."""
    yield "alive"
    sys.exit(0)


def dies_in_a_word(folder):
    waits_for_others(folder, 1)
    reader = next(given for given in gc.get_objects() if isinstance(given, Connection) and not given.closed)
    os.write(reader.fileno(), struct.pack("!i", 100) + b"half")
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def stopped(folder):
    """Hears nothing any more, not even that it shall end."""
    (Path(folder) / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGSTOP)
    yield


def lingers(place):
    """Done, but not gone."""
    Thread(target=time.sleep, args=(600,)).start()
    yield place


def either(what, *given):
    yield from globals()[what](*given)
