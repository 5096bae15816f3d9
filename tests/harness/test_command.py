"""The `lmms-eval` command itself, as people type it. A call costs half a minute of imports, so there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lmms_eval.__main__ as harness
import lmms_eval.tasks
import pytest
from harness_files import task_samples, write_run

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.harness.command import HarnessRun
from lmms_ca_plugin.harness.record import versions, weights_of

LAYERS = {"review_layer": 4, "scope": "0:1:2", "rho": 0.5}
TYPED = ("gqa", "textvqa", "ca_docvqa")  # the second is a group, whose test split carries no answers


@pytest.fixture(scope="module")
def runs(suite, checkpoint, tmp_path_factory):
    """Batch 1 and batch 4, in one command by a file of runs: its imports cost more than all answers."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "runs.yaml").write_text("- batch_size: 1\n- batch_size: 4\n")
    command = HarnessRun("llava_contrastive", {"pretrained": checkpoint, **LAYERS}, TYPED, folder).command
    command += ["--config", str(folder / "runs.yaml")]
    at = command.index("--batch_size")
    del command[at : at + 2]  # it would win over the file
    environment = {**os.environ, **suite.environment, "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=suite.folder, env=environment, capture_output=True, text=True)
    results = {json.loads(f.read_text())["config"]["batch_size"]: f for f in folder.rglob("*_results.json")}
    assert (done.returncode, set(results)) == (0, {1, 4}), done.stdout[-3000:] + done.stderr[-3000:]
    return [results[1], results[4]]


def samples(result, task):
    file = result.with_name(result.name.replace("results.json", f"samples_{task}.jsonl"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["doc_id"]: line["filtered_resps"] for line in lines}


def test_batch_one_and_batch_four_answer_alike(runs):
    one, four = runs
    for task, number in (("gqa", 15), ("textvqa_val", 15), ("textvqa_test", 4)):
        assert len(samples(one, task)) == number
        assert samples(one, task) == samples(four, task)
        assert all(any(answer) for answer in samples(one, task).values())  # this model never ends at once


def test_the_result_file_holds_scores_and_settings(runs):
    result = json.loads(runs[1].read_text())
    assert {"gqa", "textvqa_val", "textvqa_test"} <= set(result["results"])
    (record,) = result["config"]["batch_sizes"]
    assert (record["entry"], record["batch_size"], record["parameters"]["rho"]) == ("contrastive", 4, 0.5)


def test_the_bare_command_finds_our_tasks(runs):
    result = json.loads(runs[1].read_text())["results"]["ca_docvqa"]
    assert {"vqa_exact,none", "anls,none", "word_overlap,none"} <= set(result)
    assert len(samples(runs[1], "ca_docvqa")) == 19


def test_a_failure_in_our_entry_ends_the_command_with_status_1(in_suite, checkpoint, tmp_path, monkeypatch):
    """The harness's own main function, in this process: it catches what fails, and must not catch this."""
    own = str(Path(lmms_eval.tasks.__file__).parent / "gqa")
    only_gqa = lmms_eval.tasks.TaskManager("ERROR", include_path=own, include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", lambda *_, **__: only_gqa)
    run = HarnessRun("llava_contrastive", {"pretrained": checkpoint, **LAYERS, "rho": 3}, ("gqa",), tmp_path)
    monkeypatch.setattr(sys, "argv", run.command)
    with pytest.raises(SystemExit) as ended:
        harness.cli_evaluate()
    assert ended.value.code == 1


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(HarnessRun, "command", [sys.executable, "-c", "raise SystemExit('rho=3 is not a share')"])
    with pytest.raises(LmmsCaError, match="llava_vanilla ended with status 1(.|\n)*rho=3 is not a share"):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path)()


def test_a_command_tells_how_far_it_is(tmp_path, monkeypatch):
    """By the bar that our entries draw, whatever the harness draws beside it."""
    monkeypatch.setattr("lmms_ca_plugin.harness.command.TOLD_EVERY", 0.01)
    bars = "Building contexts: 100%|##| 9/9 [00:00<00:00]\rvanilla:  2%|#| 1/64 [00:01<00:07, 7.90question/s]\r"
    write = f"sys.stderr.write({bars!r}); sys.stderr.flush()"
    script = f"import sys, time; time.sleep(0.3); {write}; time.sleep(0.5); sys.exit(3)"
    monkeypatch.setattr(HarnessRun, "command", [sys.executable, "-c", script])
    told = []
    with pytest.raises(LmmsCaError, match="ended with status 3"):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path)(told.append)
    assert list(dict.fromkeys(told)) == ["loading", "1 of 64 questions"]


def test_a_command_that_nobody_waits_for_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.command.TOLD_EVERY", 0.01)
    monkeypatch.setattr(HarnessRun, "command", ["sleep", "60"])
    begun = []
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, popen=subprocess.Popen, **k: begun.append(popen(*a, **k)) or begun[0]
    )

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path)(interrupt)
    assert begun[0].returncode == -15


@pytest.fixture
def harness_run(tmp_path, monkeypatch):
    """A run whose command leaves what lies in a folder, and the result file there."""
    result = write_run(
        tmp_path / "made" / "mini", {"gqa": task_samples("gqa", [0.0, 1.0], "vqa_exact")}, metric="vqa_exact"
    )
    run = HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path / "run")
    monkeypatch.setattr(HarnessRun, "command", ["cp", "-r", str(tmp_path / "made" / "mini"), str(run.log.parent)])
    return run, result


def test_a_command_gives_its_result_file_and_its_log_lies_beside(harness_run, tmp_path):
    run, result = harness_run
    assert run() == tmp_path / "run" / "mini" / result.name
    assert {path.name for path in tmp_path.iterdir()} == {"made", "run"} and (run.output / "llava_vanilla.log").exists()


@pytest.mark.parametrize("spoil", ["results", "samples", "last line"])
def test_a_command_that_leaves_half_a_result_leaves_none(harness_run, spoil):
    """As one that was killed, or found the disk full, of which the harness exits with 0; the next one begins anew."""
    run, result = harness_run
    (samples,) = result.parent.glob("*_samples_*")
    spoiled = result if spoil == "results" else samples
    whole = spoiled.read_text()
    spoiled.write_text("" if spoil != "last line" else "".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(
        LmmsCaError, match=f"left no whole result: .*{spoiled.name}(.|\n)*The end of .*llava_vanilla.log"
    ):
        run()
    assert not run.output.exists()
    spoiled.write_text(whole)
    assert run().exists()


def test_an_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "picture.jpg").touch()
    with pytest.raises(LmmsCaError, match="picture.jpg/run cannot be made: .* Name another output folder"):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path / "picture.jpg" / "run")()


def test_a_command_without_a_result_file_is_an_error(tmp_path, monkeypatch):
    """The harness itself exits with 0 when an evaluation fails."""
    monkeypatch.setattr(HarnessRun, "command", ["true"])
    with pytest.raises(LmmsCaError, match="left no whole result: .*holds no .*_results.json"):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path / "run")()


# ---- what an earlier run left ----------------------------------------------------------------------------------------
def left(folder, name="mini", **changed):
    """A run's result file as the harness leaves it, with what tells runs apart, and the run."""
    run = HarnessRun("llava_vanilla", {"pretrained": "mini"}, ("mini",), folder, limit=6)
    typed = {"model": run.model, "model_args": run.arguments, "tasks": "mini", "limit": 6.0}
    record = {"entry": "vanilla", "weights": weights_of(CheckpointOptions("mini")), "versions": versions()}
    config = {
        "resolved_cli_args": {name: changed.get(name, value) for name, value in typed.items()},
        "batch_sizes": [{name: changed.get(name, value) for name, value in record.items()}],
    }
    file = folder / name / "20261126_results.json"
    file.parent.mkdir()
    rest = {key: {} for key in ("results", "configs", "versions", "higher_is_better", "n-samples")}
    file.write_text(json.dumps({**rest, "date": 0.0, "config": config}))
    return run, file


def test_an_earlier_result_of_the_same_run_is_found(tmp_path):
    run, file = left(tmp_path)
    assert run.earlier() == file
    assert HarnessRun("llava_vanilla", {"pretrained": "mini"}, ("mini",), tmp_path / "new").earlier() is None


@pytest.mark.parametrize(
    "changed",
    [{"limit": None}, {"model_args": "pretrained=other"}, {"weights": "0" * 64}, {"versions": {"torch": "1.0"}}],
    ids=lambda changed: next(iter(changed)),
)
def test_an_earlier_result_of_another_run_is_refused(tmp_path, changed):
    run, _ = left(tmp_path, **changed)
    with pytest.raises(LmmsCaError, match="is of another run: .*Name another output folder"):
        run.earlier()


def test_what_is_no_whole_result_is_refused(tmp_path):
    run, file = left(tmp_path)
    file.write_text(file.read_text()[:-9])
    with pytest.raises(LmmsCaError, match="is not whole JSON"):
        run.earlier()
    file.rename(file.with_name("notes.txt"))
    with pytest.raises(LmmsCaError, match="holds other files than a run's result. Name another output folder."):
        run.earlier()


def test_every_earlier_result_is_looked_at(tmp_path):
    run, _ = left(tmp_path)
    left(tmp_path, "other", model="llava_dola")
    with pytest.raises(LmmsCaError, match="other.* is of another run: {'model': 'llava_dola'}"):
        run.earlier()


def test_a_result_of_an_entry_that_is_not_ours_is_of_another_run(tmp_path):
    run, file = left(tmp_path)
    told = json.loads(file.read_text())
    told["config"]["batch_sizes"] = [8]
    file.write_text(json.dumps(told))
    with pytest.raises(LmmsCaError, match="is of another run: {'weights': None"):
        run.earlier()
