"""Studies on the harness's own tasks, as it ships them."""

from pathlib import Path

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.results.runs import read_runs
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.sweep import sweep


def test_a_sweep_runs_on_the_six_tasks_of_the_harness(own_tasks, checkpoint, tmp_path):
    """Two of them also write a submission, into the folder that the command names."""
    asked = Asked(own_tasks, tmp_path, CheckpointOptions(checkpoint), batch_size=4, limit=2)
    elsewhere = set(Path("submissions").glob("*"))
    swept = sweep(["layermask"], asked)["layermask"]
    assert set(Path("submissions").glob("*")) == elsewhere
    variants = len(swept.finished.study.variants)
    assert swept.table.groupby("task").size().to_dict() == dict.fromkeys(own_tasks, variants)
    assert swept.table["score"].notna().all()
    for file in swept.finished.results.values():
        assert {run.task: len(run.documents) for run in read_runs([file])[0]} == dict.fromkeys(own_tasks, 2)
        assert (file.parents[1] / "submissions").is_dir()
