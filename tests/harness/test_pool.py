"""Processes whose results are read as they come: nothing is lost, and none is left, whatever ends them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import at_work
import pytest

from lmms_ca_plugin.errors import MemoryLimitError, ProcessError
from lmms_ca_plugin.harness.pool import gathered


@pytest.fixture(autouse=True)
def _none_is_left():
    yield
    assert not multiprocessing.active_children()


def test_all_is_passed_on_in_its_order():
    found = list(gathered(at_work.counts, [(0, 3), (1, 0), (2, 1000)]))
    assert sorted(found) == [(0, i) for i in range(3)] + [(2, i) for i in range(1000)]
    assert [i for place, i in found if place == 2] == list(range(1000))


@pytest.mark.parametrize(
    ("doomed", "error", "message"),
    [
        (("fails", "foreseen"), MemoryLimitError, "^too small$"),
        (("fails", "unforeseen"), RuntimeError, "(?s)^A process failed:\nTraceback .*at_work.py.*ZeroDivisionError"),
        (("dies",), ProcessError, "ended with status -9 before .* memory ran out: take fewer.* answered is kept: run"),
        (("dies_in_a_word",), ProcessError, "ended with status -9 before it was done"),
        (("leaves",), ProcessError, "ended with status 0 before it was done. Its last words are above, if it had any"),
    ],
)
def test_the_first_failure_is_told_and_ends_all(tmp_path, doomed, error, message):
    what, *more = doomed
    with pytest.raises(error, match=message):
        list(gathered(at_work.either, [("sleeps", str(tmp_path)), (what, str(tmp_path), *more)]))


def test_one_that_is_done_is_not_waited_for():
    assert sorted(gathered(at_work.lingers, [(0,), (1,)])) == [0, 1]


def test_one_that_hears_nothing_is_ended_too(tmp_path):
    with pytest.raises(MemoryLimitError):
        list(gathered(at_work.either, [("stopped", str(tmp_path)), ("fails", str(tmp_path), "foreseen")]))


def test_work_may_be_larger_than_a_pipe():
    number = 10**6
    assert list(gathered(at_work.sizes, [(range(3), bytes(number))])) == [number, number, number]


def test_who_stops_reading_ends_all(tmp_path):
    with closing(gathered(at_work.either, [("sleeps", str(tmp_path)), ("dies", str(tmp_path / "none"))])) as told:
        (tmp_path / "none").mkdir()
        assert next(told) == "alive"


def test_no_process_outlives_the_one_that_reads(tmp_path):
    """Killed, it can end nobody itself."""
    calls = [(str(tmp_path),)] * 2
    reads = f"import at_work\nfrom lmms_ca_plugin.harness import pool\nlist(pool.gathered(at_work.sleeps, {calls}))"
    path = os.pathsep.join([str(Path(at_work.__file__).parent), os.environ.get("PYTHONPATH", "")])
    reader = subprocess.Popen([sys.executable, "-c", reads], env={**os.environ, "PYTHONPATH": path})
    numbers = _soon(lambda: [int(file.name) for file in tmp_path.iterdir()], lambda found: len(found) == 2)
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    _soon(lambda: [number for number in numbers if _is_running(number)], lambda left: not left)


def test_a_stop_from_the_keyboard_is_for_the_one_that_reads_alone():
    """A terminal sends it to all of them."""
    assert list(gathered(at_work.interrupted, [()])) == ["went on"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _soon(look, is_right):
    for _ in range(600):
        if is_right(found := look()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"still {found}")


def _is_running(number):
    try:
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()  # one that nobody waits for runs no more
    except FileNotFoundError:
        return False
