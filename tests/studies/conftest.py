"""A small checkpoint with the mini checkpoint's words, and the studies that tests run on it."""

from __future__ import annotations

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


@pytest.fixture
def asked(checkpoint, given, tmp_path, monkeypatch):
    """Settings of a study on four documents of two sets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return Asked(
        tasks=("mini_gqa", "mini_docvqa"),
        output=tmp_path / "studies",
        checkpoint=CheckpointOptions(checkpoint),
        given=given,
        batch_size=3,
        limit=4,
    )
