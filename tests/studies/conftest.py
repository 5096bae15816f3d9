"""A small checkpoint with the mini checkpoint's words, and the studies that tests run on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Six blocks of random weights; it tells nothing and answers at once."""
    settings = TinySettings("llava", num_blocks=6, hidden_size=32, image_size=56, eos_gain=0, words="world")
    return str(write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small", settings))


@pytest.fixture(scope="session")
def given():
    """What methods need to be told of that checkpoint."""
    return {"contrastive": {"review_layer": 5, "scope": "1:2"}, "vicrop": {"layer": 2}, "var": {"tau": 1.5}}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keeps the mini sets' rows out of the user's data-set cache."""
    patch = pytest.MonkeyPatch()
    folder = str(tmp_path_factory.mktemp("cache"))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    patch.setenv("HF_DATASETS_CACHE", folder)  # for processes that tests start
    yield
    patch.undo()


@pytest.fixture(scope="session")
def settings(checkpoint, given):
    """Settings of a study on four documents of two sets, that lack a folder."""
    return Asked(
        tasks=("mini_gqa", "mini_docvqa"),
        output=Path(),
        checkpoint=CheckpointOptions(checkpoint),
        given=given,
        batch_size=3,
        limit=4,
    )


@pytest.fixture
def asked(settings, tmp_path):
    """The same with a folder of the test's own."""
    return replace(settings, output=tmp_path / "studies")
