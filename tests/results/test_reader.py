"""Reading the harness's files: real ones whole, and every way in which they can be broken."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from harness_files import task_samples, write_run

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.runs import read_runs

DATA = Path(__file__).parent / "data"


def test_two_runs_in_one_folder_are_paired_by_date():
    runs, notes = read_runs([DATA / "ca"])
    assert notes == []
    assert [(run.provenance.method, run.task) for run in runs[::6]] == [
        ("contrastive", "ca_docvqa"),
        ("toy2", "ca_docvqa"),
    ]
    assert len(runs) == 12
    assert all(len(run.documents) == 12 and run.cluster_source == "image" for run in runs)
    means = {run.task: run.documents[run.main].mean() for run in runs[:6]}
    assert means["ca_textvqa"] == pytest.approx(8 / 12)


def test_a_record_of_our_entry_is_read_whole():
    origin = read_runs([DATA / "ca"])[0][0].provenance
    assert (origin.model, origin.revision, origin.method, origin.entry) == ("lab/toy", "abc123", "contrastive", "toy")
    assert (
        origin.method_args
        == "conversation=llava_v1,image_aspect_ratio=pad,record=record.json,rho=0.2,scope=fusion,skill=0.7"
    )
    assert (origin.dtype, origin.device, origin.batch_size, origin.seed) == ("float32", "cpu", "8", "0")
    assert (origin.plugin, origin.lmms_eval, origin.transformers) == ("0.1.0", "0.7.3", "5.23.0")
    assert (origin.seconds, origin.samples_per_second) == (12.5, pytest.approx(5.76))
    assert origin.date == "2026-11-21T02:54:29"
    assert origin.command.startswith("lmms-eval --model toy --model_args pretrained=lab/toy,")


def test_runs_of_our_own_entries():
    vanilla, ours = (run.provenance for run in read_runs([DATA / "entry"])[0])
    assert (vanilla.method, vanilla.method_args) == ("vanilla", "conversation=vicuna_v1,image_aspect_ratio=pad")
    assert ours.method == "contrastive"
    assert ours.method_args == (
        "contrast=abs,conversation=vicuna_v1,distance=hellinger,image_aspect_ratio=pad,image_tokens=all,"
        "mask_by=contrastive,preset=paper,renormalise=true,rho=0.2,scope=fusion,select=exact,site=residual"
    )
    assert (ours.dtype, ours.device, ours.batch_size, ours.plugin) == ("float32", "cpu", "8", "0.1.0")
    assert ours.seconds > 0
    assert ours.samples_per_second == pytest.approx(6 / ours.seconds)


def test_our_entries_still_write_what_is_read_here():
    harness = Path(__file__).parents[2] / "lmms_ca_plugin" / "harness"
    trees = [ast.parse((harness / name).read_text()) for name in ("record.py", "entries.py")]
    written = {
        key.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys if key
    }
    assert written >= (
        {"entry", "parameters", "seed", "batch_size", "commit", "dtype", "device", "seconds", "samples"}
        | {"peak_memory_gib", "versions", "plugin", "lmms_eval", "transformers", "torch"}
    )


def test_the_harnesss_own_tasks():
    runs, _ = read_runs([DATA / "own"])
    assert {run.task: run.main for run in runs} == {
        "docvqa_val": "anls",
        "gqa": "exact_match",
        "ok_vqa_val2014": "exact_match",
        "textvqa_val": "exact_match",
        "vizwiz_vqa_val": "exact_match",
        "vqav2_val": "exact_match",
    }
    assert {run.cluster_source for run in runs} == {"none"}
    assert all(run.documents["cluster"].is_unique for run in runs)
    assert all(run.metrics == (run.main,) for run in runs)  # submissions are no scores


def test_a_limit_is_no_missing_document():
    runs, _ = read_runs([DATA / "limit"])
    assert [len(run.documents) for run in runs] == [6, 6]
    assert "--limit 6 " in runs[0].provenance.command


def test_predict_only_has_no_scores():
    with pytest.raises(InputError, match="ca_gqa was run with --predict_only"):
        read_runs([DATA / "predict"])


def test_the_same_folder_twice_is_read_once():
    assert len(read_runs([DATA / "own", DATA / "own"])[0]) == 6


def test_documents_are_sorted_whatever_the_order_in_the_file(tmp_path):
    samples = task_samples("ca_gqa", [1, 0, 1, 1])
    write_run(tmp_path, {"ca_gqa": [samples[2], samples[0], samples[3], samples[1]]})
    documents = read_runs([tmp_path])[0][0].documents
    assert documents.index.tolist() == [0, 1, 2, 3]
    assert documents["vqa_accuracy"].tolist() == [1, 0, 1, 1]


def test_answers_with_line_separators_stay_one_line(tmp_path):
    odd = ["a\u2028b", "c\x85d", "e\nf", ""]
    write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", [1, 0, 1, 1], answers=odd)})
    assert read_runs([tmp_path])[0][0].documents["answer"].tolist() == odd


def test_a_failed_document_is_kept_apart(tmp_path):
    write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", [1, None, 0])})
    assert read_runs([tmp_path])[0][0].documents["vqa_accuracy"].isna().tolist() == [False, True, False]


def test_a_reported_score_that_counts_a_failed_document_as_0_is_read(tmp_path):
    file = write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", [1, None, 1])})
    file.write_text(file.read_text().replace('"vqa_accuracy,none": 1.0', '"vqa_accuracy,none": 0.667'))
    assert '"vqa_accuracy,none": 0.667' in file.read_text()
    (run,), _ = read_runs([tmp_path])
    assert run.documents["vqa_accuracy"].tolist()[::2] == [1, 1] and run.documents["vqa_accuracy"].isna().sum() == 1


def test_a_test_split_without_answers_is_noted(tmp_path):
    path = write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", [1, 0])})
    content = json.loads(path.read_text())
    content["configs"]["vqav2_test"] = {}
    content["results"]["vqav2_test"] = {"submission,none": None}
    content["higher_is_better"]["vqav2_test"] = {"submission": True}
    path.write_text(json.dumps(content))
    runs, notes = read_runs([tmp_path])
    assert [run.task for run in runs] == ["ca_gqa"]
    assert notes == ["vqav2_test has no score: its answers are not public."]


def test_a_lone_sample_file(tmp_path):
    write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", [1, 0, 1])}).unlink()
    (run,) = read_runs([tmp_path / "20260101_000000_samples_ca_gqa.jsonl"])[0]
    assert (run.task, run.main, run.version, run.provenance) == ("ca_gqa", "vqa_accuracy", "", None)


@pytest.fixture
def broken(tmp_path):
    """A copy of a real run, and a way to change its sample file of ca_gqa."""
    shutil.copytree(DATA / "limit" / "lab__toy", tmp_path / "run")
    (samples,) = (tmp_path / "run").glob("*_samples_ca_gqa.jsonl")
    (results,) = (tmp_path / "run").glob("*_results.json")
    return tmp_path / "run", samples, results


def edit(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def refused(folder, message):
    with pytest.raises(InputError, match=message):
        read_runs([folder])


def test_half_written_last_line(broken):
    folder, samples, _ = broken
    samples.write_text(samples.read_text()[:-40])
    refused(folder, rf"{samples.name}: its last line is half-written")


def test_cut_at_a_line(broken):
    folder, samples, _ = broken
    edit(samples, lambda lines: lines.pop())
    refused(folder, r"samples_ca_gqa.jsonl holds 5 documents, the run had 6")


def test_a_broken_line_in_the_middle(broken):
    folder, samples, _ = broken
    samples.write_text(samples.read_text().replace('"doc_id": 2', '"doc_id": '))
    refused(folder, r"line 3 is not whole JSON")


def test_cut_within_a_letter(broken):
    folder, samples, _ = broken
    samples.write_bytes(samples.read_bytes() + "é".encode()[:1])
    refused(folder, r"not whole UTF-8")


def test_a_document_twice(broken):
    folder, samples, _ = broken
    edit(samples, lambda lines: lines.append(lines[0]))
    refused(folder, r"document 0 is there twice. Two runs that ended in the same second")


def test_a_file_of_another_task(broken):
    folder, samples, _ = broken
    shutil.copy(next(folder.glob("*_samples_ca_textvqa.jsonl")), samples)
    refused(folder, r"document 0 has no vqa_exact.*another task or of another scorer")


def test_a_file_of_another_run_of_the_task(broken):
    folder, samples, _ = broken
    edit(samples, lambda lines: lines[0]["vqa_exact"].update(score=0.0))
    refused(folder, r"averages to 0.833333, the results file says 1.000000. The two files are not of one run")


@pytest.mark.parametrize("logged", [{"answer": "yes"}, 3.0, {"score": 0.5}])
def test_a_second_metric_that_is_no_mean_is_left_out_with_a_note(broken, logged):
    """A share of yes-answers, a sum, another mean: as POPE and MME have them."""
    folder, samples, results = broken
    edit(samples, lambda lines: [line.update(other=logged) for line in lines])
    content = json.loads(results.read_text())
    content["results"]["ca_gqa"]["other,none"] = 0.25
    content["higher_is_better"]["ca_gqa"]["other"] = True
    results.write_text(json.dumps(content))
    runs, notes = read_runs([folder])
    (run,) = (run for run in runs if run.task == "ca_gqa")
    assert run.main == "vqa_exact" and "other" not in {*run.metrics, *run.documents}
    assert "ca_gqa: other left out, no mean of its documents' scores from 0 to 1." in notes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the vqa_exact of document 3 is nan; a score is a number from 0 to 1"),
        (float("inf"), "is inf"),
        (-0.1, "is -0.1"),
        (61.3, "is 61.3"),
        ("1.0", "is '1.0', which is no number"),
        (True, "is True, which is no number"),
    ],
)
def test_scores_that_are_none(broken, value, message):
    folder, samples, _ = broken
    edit(samples, lambda lines: lines[3]["vqa_exact"].update(score=value))
    refused(folder, message)


def test_no_doc_id(broken):
    folder, samples, _ = broken
    edit(samples, lambda lines: lines[1].pop("doc_id"))
    refused(folder, r"line 2 has no doc_id")


def test_an_empty_sample_file(broken):
    folder, samples, _ = broken
    samples.write_text("")
    refused(folder, r"samples_ca_gqa.jsonl is empty")


def test_a_missing_sample_file(broken):
    folder, samples, _ = broken
    samples.unlink()
    refused(folder, r"has scores of ca_gqa but no .*_samples_ca_gqa.jsonl.*--log_samples")


def test_samples_without_their_results(broken):
    folder, _, results = broken
    results.unlink()
    refused(folder, r"2 sample files have no results file of the same date")


def test_a_sample_file_of_a_stranger(broken):
    folder, samples, _ = broken
    shutil.copy(samples, samples.with_name(samples.name.replace("ca_gqa", "ca_docvqa")))
    refused(folder, r"knows no task ca_docvqa.*two runs are mixed")


def test_half_written_results(broken):
    folder, _, results = broken
    results.write_text(results.read_text()[:500])
    refused(folder, r"not whole JSON.*cut off")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"results": {}}', r"lacks configs, versions.*no results file of lmms-eval"),
        ("null", r"_results\.json holds null, which is no JSON object: it is no results file of lmms-eval"),
        ("[1, 2]", r"_results\.json holds \[1, 2\], which is no JSON object"),
        (
            '{"results": {}, "configs": null, "versions": {}, "higher_is_better": {}, "n-samples": {}, "config": {}, '
            '"date": ""}',
            r"_results\.json: its configs is no JSON object",
        ),
    ],
)
def test_no_results_of_the_harness(broken, content, message):
    folder, _, results = broken
    results.write_text(content)
    refused(folder, message)


def test_an_empty_folder_and_none(tmp_path):
    refused(tmp_path, r"holds no .*exits with status 0 all the same")
    refused(tmp_path / "nowhere", r"nowhere does not exist")


def test_a_file_of_another_name_is_no_results_file(tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    refused(
        tmp_path / "scores.json", r"scores\.json is no results file of the harness; its name ends in _results\.json"
    )
