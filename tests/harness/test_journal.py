"""A study's journal: what it takes to hold its answers."""

import tracemalloc
from random import Random

import pytest

from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.harness.journal import Journal


def test_a_journal_takes_little_memory_and_tells_the_last_answer(tmp_path):
    """What `contrastive` logs of a question, 2,000 times; as objects it took 1.2 KB each."""
    identity, rng = {"variants": {"a": {}, "b": {}}}, Random(0)

    def answer():
        log = {"post_layer": 28, "pre_layer": 2, "distances": {block: rng.random() for block in (2, 4, 8, 11, 12, 13)}}
        return Answer("yes", 620, 576, 1, log | {"eligible_tokens": 576, "masked_tokens": 115, "masked_share": 0.1997})

    with Journal(tmp_path, identity) as journal:
        for first in range(0, 2000, 8):
            journal.write([("t", first + i) for i in range(8)], {"a": [answer() for _ in range(8)]})
        journal.write([("t", 3)], {"a": [Answer("no", 620, 576, 1, {})], "b": [answer()]})
    tracemalloc.start()
    with Journal(tmp_path, identity) as journal:
        held, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 400 * 2000
        assert len(journal.answers["a"]) == len(journal.answers.asked("a")) == 2000
        assert journal.answers["a"]["t", 3].text == "no" and journal.answers["a"]["t", 4].log["pre_layer"] == 2
        assert list(journal.answers["b"]) == [("t", 3)] and set(journal.answers) == {"a", "b"}


@pytest.mark.parametrize("folder", ["file", "file/study", "/proc/nope"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("a file")
    with (
        pytest.raises(InputError, match=rf"{folder}/journal\.jsonl cannot be written: .* Name another output folder"),
        Journal(tmp_path / folder, {"variants": {}}),
    ):
        pass
