"""The `lmms-eval` command itself, as people type it. Each call costs half a minute of imports, so there are few."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.harness.command import HarnessRun

LAYERS = {"review_layer": 4, "scope": "0:1:2", "rho": 0.5}
TYPED = ("gqa", "textvqa")  # the second is a group, whose test split carries no answers


@pytest.fixture(scope="module")
def runs(suite, checkpoint, tmp_path_factory):
    """Three commands side by side: batch 1, batch 4, and one that fails."""

    def run(name, batch_size, tasks, **options):
        own_cache = {"HF_DATASETS_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
        call = HarnessRun(
            "llava_contrastive",
            {"pretrained": checkpoint, **LAYERS, **options},
            tasks,
            tmp_path_factory.mktemp(name),
            batch_size=batch_size,
            folder=suite.folder,
            environment={**suite.environment, **own_cache},
        )
        try:
            return call()
        except LmmsCaError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(run, "one", 1, TYPED),
            pool.submit(run, "four", 4, (*TYPED, "ca_docvqa")),
            pool.submit(run, "fails", 4, TYPED, rho=3),
        ]
        return [call.result() for call in calls]


def samples(result, task):
    (file,) = result.parent.glob(f"*_samples_{task}.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["doc_id"]: line["filtered_resps"] for line in lines}


def test_batch_one_and_batch_four_answer_alike(runs):
    one, four, _ = runs
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


def test_a_failure_in_our_entry_ends_the_command_with_status_1(runs):
    error = runs[2]
    assert isinstance(error, LmmsCaError)
    assert "llava_contrastive ended with status 1" in str(error) and "rho=3 is not a share" in str(error).replace(
        "3.0", "3"
    )


def test_a_command_without_a_result_file_is_an_error(tmp_path, monkeypatch):
    """The harness itself exits with 0 when an evaluation fails."""
    monkeypatch.setattr(HarnessRun, "command", ["true"])
    with pytest.raises(LmmsCaError, match="left 0 result files, not 1"):
        HarnessRun("llava_vanilla", {}, ("gqa",), tmp_path)()
