"""The offline suite, the harness's own six tasks, and a checkpoint small enough to answer them in seconds."""

from __future__ import annotations

from pathlib import Path

import datasets
import lmms_eval.tasks
import pytest
from lmms_eval.evaluator import simple_evaluate

from lmms_ca_plugin.harness import entries, loaded
from lmms_ca_plugin.harness.offline import write_suite
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint

SIX = {
    "gqa": "gqa",
    "vqav2_val": "vqav2",
    "ok_vqa_val2014": "ok_vqa",
    "vizwiz_vqa_val": "vizwiz_vqa",
    "textvqa_val": "textvqa",
    "docvqa_val": "docvqa",
}
LAYERS = {"review_layer": 4, "scope": "0:1:2"}


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "llava-small"
    return str(write_checkpoint(folder, TinySettings("llava", num_blocks=6, hidden_size=32, image_size=56, eos_gain=0)))


@pytest.fixture
def in_suite(suite, monkeypatch):
    """Makes the suite's folder the current one, with a data-set cache of its own."""
    monkeypatch.chdir(suite.folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", suite.environment["HF_DATASETS_CACHE"])
    return suite


@pytest.fixture
def evaluate(in_suite):
    """Runs the harness's evaluation on its own tasks, in this process."""
    own = Path(lmms_eval.tasks.__file__).parent

    def run(model, tasks, **more):
        folders = sorted({str(own / SIX[task]) for task in tasks})
        manager = lmms_eval.tasks.TaskManager("ERROR", include_path=folders, include_defaults=False)
        settings = {"bootstrap_iters": 0, "log_samples": True, "batch_size": model.engine.options.batch_size}
        return simple_evaluate(model=model, tasks=list(tasks), task_manager=manager, **{**settings, **more})

    return run


@pytest.fixture
def own_tasks(in_suite, monkeypatch):
    """The six names, found without the half minute in which the harness looks for all others."""
    manager, root = loaded.TaskManager, Path(lmms_eval.tasks.__file__).parent
    found = manager("ERROR", include_path=sorted({str(root / of) for of in SIX.values()}), include_defaults=False)
    monkeypatch.setattr(loaded, "TaskManager", lambda *_, **__: found)
    return tuple(SIX)


@pytest.fixture
def make(checkpoint):
    """Makes an entry as the harness does: its class by name, its options as keywords."""

    def entry(name="Chat_vanilla", **options):
        return getattr(entries, name)(**{"pretrained": checkpoint, **options})

    return entry
