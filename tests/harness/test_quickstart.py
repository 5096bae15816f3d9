"""The quickstart: every method once, each in a folder of its own, then a leaderboard. The runs are made up."""

import pandas as pd
import pytest
from harness_files import task_samples, write_run
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.cli.quickstart import ENTRIES
from lmms_ca_plugin.harness.command import HarnessRun
from lmms_ca_plugin.methods import method_entries

WRONG = {"llava_layermask_L3": 9, "llava_dola": 2}  # of ten


@pytest.fixture
def runs(monkeypatch):
    """What was run, in order; every run leaves ten scored questions."""
    made = []

    def run(self, tell):
        tell("1 of 10 questions")
        made.append(self)
        wrong = WRONG.get(self.model, 0)
        samples = {"mini_gqa": task_samples("mini_gqa", [0.0] * wrong + [1.0] * (10 - wrong), "vqa_exact")}
        record = {"entry": self.model.removeprefix("llava_")}
        folder, entry = self.output / "mini", {"model": self.model, "pretrained": "mini"}
        return write_run(folder, samples, metric="vqa_exact", record=record, **entry)

    monkeypatch.setattr(HarnessRun, "__call__", run)
    return made


def test_every_method_runs_once_and_is_compared_with_vanilla(runs, tmp_path):
    result = CliRunner().invoke(build(), ["quickstart", str(tmp_path), "--limit", "10"], catch_exceptions=False)
    assert result.exit_code == 0 and [run.model for run in runs] == list(ENTRIES)
    assert {run.model.removeprefix("llava_") for run in runs} <= {entry.name for entry in method_entries()}
    assert {(run.limit, run.tasks, run.arguments) for run in runs} == {(10, ("mini",), "pretrained=mini")}
    assert len({run.output for run in runs}) == len(runs)
    assert {run.environment["HF_DATASETS_CACHE"] for run in runs} == {str(tmp_path / ".cache")}
    board = pd.read_csv(tmp_path / "limit-10" / "leaderboard.csv").set_index("method")
    assert board["delta"].dropna().to_dict() == {
        **dict.fromkeys(("contrastive", "vicrop", "var"), 0.0),
        **{"dola": -20.0, "layermask_L3": -90.0},
    }
    for entry in ENTRIES:
        assert f"| mini | {entry.removeprefix('llava_')} |" in result.stdout
    assert str(tmp_path / "limit-10" / "leaderboard.csv") in result.stdout


def test_a_rerun_in_the_folder_of_something_else_is_refused(runs, tmp_path):
    """These files do not say that they are of the same weights and versions."""
    CliRunner().invoke(build(), ["quickstart", str(tmp_path)], catch_exceptions=False)
    again = CliRunner().invoke(build(), ["quickstart", str(tmp_path)])
    assert "is of another run" in str(again.exception) and len(runs) == len(ENTRIES)
