"""Verdicts, flips, what cannot be compared, references, JSON and JUnit."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness_files import flipped, task_samples, write_run

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.results import regression
from lmms_ca_plugin.results.references import keep, load_reference, load_side
from lmms_ca_plugin.results.regression import CannotCompareError, Rules, compare
from lmms_ca_plugin.results.reports import details, error_junit, headline, to_json, to_junit

DATA = Path(__file__).parent / "data"
BEFORE = [1.0] * 600 + [0.0] * 400
LOST = flipped(BEFORE, 0.1, 0.06, seed=2)
WON = flipped(BEFORE, 0.1, -0.06, seed=3)
NOISY = flipped(BEFORE, 0.1, 0.0, seed=4)
NEARLY = [*BEFORE[1:], BEFORE[0]]  # one document each way


def sides(folder, after, before=BEFORE, task="ca_textvqa", **kwargs):
    write_run(folder / "base", {task: task_samples(task, before)})
    write_run(folder / "cand", {task: task_samples(task, after)}, **kwargs)
    return folder / "base", folder / "cand"


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(LOST, "regressed"), (WON, "improved"), (NEARLY, "same"), (BEFORE, "same"), (NOISY, "unclear")],
)
def test_verdicts(tmp_path, after, verdict):
    found = compare(*sides(tmp_path, after))
    (task,) = found.tasks
    assert task.verdict == verdict
    assert found.regressed == (verdict == "regressed")
    assert (task.samples_to_decide is not None) == (verdict == "unclear")


def test_a_loss_inside_the_tolerance_is_no_regression(tmp_path):
    base, cand = sides(tmp_path, LOST)
    assert compare(base, cand, Rules(tolerance=0.0)).tasks[0].verdict == "regressed"
    assert compare(base, cand, Rules(tolerance=0.10)).tasks[0].verdict == "same"
    assert compare(base, cand, Rules(tolerance=0.075)).tasks[0].verdict == "unclear"


def test_holm_spares_one_task_among_many(tmp_path):
    # 38 lost and 22 won of 1,000: z = 16 / sqrt(60) = 2.07, p = 0.04 lies between alpha / 6 and alpha
    weak = [0.0] * 38 + BEFORE[38:-22] + [1.0] * 22
    tasks = [f"ca_{name}" for name in ("gqa", "vqav2", "okvqa", "vizwiz", "textvqa", "docvqa")]
    write_run(tmp_path / "base", {task: task_samples(task, BEFORE) for task in tasks})
    write_run(tmp_path / "cand", {task: task_samples(task, weak if task == "ca_gqa" else BEFORE) for task in tasks})
    together = {task.task: task for task in compare(tmp_path / "base", tmp_path / "cand", Rules(0.0)).tasks}
    (alone,) = compare(tmp_path / "base", tmp_path / "cand", Rules(0.0), ["ca_gqa"]).tasks
    assert 0.05 / 6 < alone.p_holm < 0.05
    assert together["ca_gqa"].p_holm == pytest.approx(6 * alone.p_holm)
    assert (alone.verdict, together["ca_gqa"].verdict) == ("regressed", "unclear")


def test_flips_hold_both_answers_greatest_loss_first(tmp_path):
    after = list(BEFORE)
    after[3], after[7], after[999] = 0.3, 0.0, 1.0
    (task,) = compare(*sides(tmp_path, after)).tasks
    assert [flip.doc_id for flip in task.flips] == [7, 3, 999]
    assert (task.flips[0].baseline_answer, task.flips[0].candidate_answer) == ("right", "wrong")
    assert (task.flips[1].baseline_score, task.flips[1].candidate_score) == (1, 0.3)
    assert (task.pair.improved, task.pair.worsened) == (1, 2)


def test_a_metrics_name_may_be_any_text(tmp_path):
    for side, scores in (("base", BEFORE), ("cand", [0.0, *BEFORE[1:]])):
        write_run(tmp_path / side, {"ca_gqa": task_samples("ca_gqa", scores, "pass@1")}, metric="pass@1")
    (task,) = compare(tmp_path / "base", tmp_path / "cand").tasks
    assert [(flip.doc_id, flip.candidate_score) for flip in task.flips] == [(0, 0.0)]


def test_documents_on_one_side_only_are_named(tmp_path):
    base, cand = sides(tmp_path, BEFORE[:950])
    (task,) = compare(base, cand).tasks
    assert task.only_baseline == tuple(range(950, 1000))
    assert task.only_candidate == ()
    assert "50 documents are in the baseline only and were not compared: 950, 951, 952, 953, 954, ..." in details(task)


def test_different_limits_are_refused(tmp_path):
    with pytest.raises(CannotCompareError, match="100 documents are in common, of 1000 in the baseline and 100 in"):
        compare(*sides(tmp_path, BEFORE[:100]))


def test_too_few_documents_are_refused(tmp_path):
    with pytest.raises(CannotCompareError, match=r"19 documents are in common.*At least 20"):
        compare(*sides(tmp_path, [1, 0] * 9 + [1], [1, 0] * 9 + [1]))
    with pytest.raises(CannotCompareError, match="12 documents"):
        compare(*real_sides())


def real_sides():
    results = sorted((DATA / "ca" / "lab__toy").glob("*_results.json"))
    return results[1], results[0]


def test_real_files(monkeypatch):
    monkeypatch.setattr(regression, "FEWEST", 10)
    found = compare(*real_sides())
    assert [task.task for task in found.tasks] == [
        "ca_docvqa",
        "ca_gqa",
        "ca_okvqa",
        "ca_textvqa",
        "ca_vizwiz",
        "ca_vqav2",
    ]
    textvqa = found.tasks[3]
    assert textvqa.pair.difference == pytest.approx(4 / 12)
    assert any(flip.baseline_answer == "=SUM(A1)" for flip in textvqa.flips)
    assert "contrastive" in found.candidate


def test_a_folder_of_several_methods_is_no_side():
    with pytest.raises(InputError, match=r"several models or methods .*toy2.*give its results file"):
        compare(DATA / "ca", DATA / "ca")


def test_other_data_is_refused(tmp_path):
    base, cand = sides(tmp_path, BEFORE)
    samples = task_samples("ca_textvqa", BEFORE)
    samples[17]["vqa_accuracy"]["answers"] = ["new"] * 10
    write_run(cand, {"ca_textvqa": samples})
    with pytest.raises(CannotCompareError, match="1 of 1000 documents are not the same on both sides, the first is 17"):
        compare(base, cand)


def test_other_prompts_are_said(tmp_path):
    base, cand = sides(tmp_path, LOST)
    samples = task_samples("ca_textvqa", LOST)
    samples[17]["input"] = "Please: question 17?"
    write_run(cand, {"ca_textvqa": samples})
    (task,) = compare(base, cand).tasks
    assert task.notes == ("the prompts differ in 1 documents, so that the difference is not the model's alone",)


def test_another_scorer_is_refused(tmp_path):
    base, cand = sides(tmp_path, BEFORE, version=2.0)
    with pytest.raises(
        CannotCompareError, match=r"scored by vqa_accuracy, version 1.0, the candidate by vqa_accuracy, version 2.0"
    ):
        compare(base, cand)
    write_run(cand, {"ca_textvqa": task_samples("ca_textvqa", BEFORE, "exact_match")}, metric="exact_match")
    with pytest.raises(CannotCompareError, match="the candidate by exact_match"):
        compare(base, cand)


def test_a_missing_task_is_refused_and_can_be_left_out(tmp_path):
    both = {task: task_samples(task, BEFORE) for task in ("ca_gqa", "ca_textvqa")}
    write_run(tmp_path / "base", both)
    write_run(tmp_path / "cand", {"ca_gqa": both["ca_gqa"]})
    with pytest.raises(CannotCompareError, match=r"has no ca_textvqa.* --tasks ca_gqa\."):
        compare(tmp_path / "base", tmp_path / "cand")
    assert [task.task for task in compare(tmp_path / "base", tmp_path / "cand", tasks=["ca_gqa"]).tasks] == ["ca_gqa"]
    assert compare(tmp_path / "cand", tmp_path / "base").notes == (
        "ca_textvqa is in the candidate only and was not compared.",
    )
    with pytest.raises(OptionError, match=r"'ca_gqq'. Did you mean 'ca_gqa'"):
        compare(tmp_path / "base", tmp_path / "cand", tasks=["ca_gqq"])


def test_failed_documents_are_refused(tmp_path):
    with pytest.raises(CannotCompareError, match="1 documents of the candidate failed, the first is 0"):
        compare(*sides(tmp_path, [None, *BEFORE[1:]]))


def test_one_picture_has_no_standard_error(tmp_path):
    for side in ("base", "cand"):
        write_run(tmp_path / side, {"ca_gqa": task_samples("ca_gqa", BEFORE[:30], clusters=["x"] * 30)})
    with pytest.raises(CannotCompareError, match="all documents show one picture"):
        compare(tmp_path / "base", tmp_path / "cand")


def test_no_change_says_how_little_that_proves(tmp_path):
    (task,) = compare(*sides(tmp_path, BEFORE[:100], BEFORE[:100])).tasks
    assert task.verdict == "same"
    assert task.notes == ("no document changed; at 95 %, at most 3.0% of such pictures would",)


@pytest.mark.parametrize(("tolerance", "alpha"), [(-0.1, 0.05), (1.5, 0.05), (0.01, 0), (0.01, 1), (math.nan, 0.05)])
def test_rules_out_of_range(tolerance, alpha):
    with pytest.raises(InputError, match=r"tolerance is|alpha is"):
        Rules(tolerance, alpha)


def test_clusters_widen_the_interval(tmp_path):
    fours = [i // 4 for i in range(1000)]
    after = list(BEFORE)
    after[:80] = [0.0] * 80  # twenty whole pictures lost
    for side, scores in (("base", BEFORE), ("cand", after)):
        write_run(tmp_path / side, {"ca_gqa": task_samples("ca_gqa", scores, clusters=fours)})
    clustered = compare(tmp_path / "base", tmp_path / "cand").tasks[0].pair
    plain = compare(*sides(tmp_path / "plain", after)).tasks[0].pair
    assert clustered.stderr == pytest.approx(2 * plain.stderr, rel=0.02)
    assert (clustered.n_clusters, plain.n_clusters) == (250, 1000)


def test_a_reference_gives_what_its_run_gave(tmp_path, monkeypatch):
    base, cand = sides(tmp_path, LOST)
    monkeypatch.chdir(tmp_path)
    path = keep(base, "release-1.0")
    assert path == Path("leaderboards/references/release-1.0.json.gz")
    direct, kept = compare(base, cand).tasks, compare("release-1.0", cand).tasks
    assert kept == direct
    assert compare(path, cand).tasks == direct
    first = path.read_bytes()
    assert keep(base, "release-1.0").read_bytes() == first


def test_a_name_keeps_its_run(tmp_path, monkeypatch):
    base, cand = sides(tmp_path, LOST)
    monkeypatch.chdir(tmp_path)
    first = keep(base, "release-1.0").read_bytes()
    said = r"release-1.0.json.gz is a reference of this name, of another run. Take another name, or --replace it."
    with pytest.raises(InputError, match=said):
        keep(cand, "release-1.0")
    assert keep(cand, "release-1.0", replace=True).read_bytes() != first
    again = Path("leaderboards/references/release-1.0.json.gz")
    again.write_bytes(gzip.compress(gzip.decompress(again.read_bytes()), compresslevel=1))  # as another zlib may write
    keep(cand, "release-1.0")
    with pytest.raises(InputError, match=r"mini.json.gz is a reference of this name"):
        keep(base, "mini")  # the package's own
    assert not Path("leaderboards/references/mini.json.gz").exists()


def test_a_real_run_can_be_kept(tmp_path, monkeypatch):
    runs = [path.resolve() for path in real_sides()]
    monkeypatch.chdir(tmp_path)
    tasks = load_reference(keep(runs[0], "toy"))
    assert len(tasks) == 6
    assert tasks["ca_gqa"].provenance.model == "lab/toy"
    assert tasks["ca_gqa"].cluster_source == "image"


def test_one_regressed_task_of_two_fails_the_gate(tmp_path):
    for side, scores in (("base", BEFORE), ("cand", LOST)):
        tasks = {"ca_gqa": task_samples("ca_gqa", scores), "ca_okvqa": task_samples("ca_okvqa", BEFORE)}
        write_run(tmp_path / side, tasks)
    assert compare(tmp_path / "base", tmp_path / "cand").regressed


def test_another_system_instruction_is_noted(tmp_path):
    base = write_run(tmp_path / "a", {"ca_gqa": task_samples("ca_gqa", BEFORE)})
    config = {"system_instruction": "Be brief."}
    candidate = write_run(tmp_path / "b", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, config=config)
    (task,) = compare(base, candidate).tasks
    assert any("run with another system_instruction" in note for note in task.notes)


def test_the_package_keeps_one_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"References: mini\. Keep one with"):
        load_side("minim")


def test_references_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, _ = sides(tmp_path, [None, *BEFORE[1:]])
    keep(base, "release-1")
    with pytest.raises(InputError, match=r"release-2 is neither .* Did you mean 'release-1'"):
        load_side("release-2")
    with pytest.raises(InputError, match=r"'\.\./x' is no name"):
        keep(base, "../x")
    with pytest.raises(InputError, match="has failed documents"):
        keep(tmp_path / "cand", "failed")
    half = tmp_path / "half.json.gz"
    kept = tmp_path / "leaderboards/references/release-1.json.gz"
    for broken in (kept.read_bytes()[:50], kept.read_bytes()[:50] + b"x" * 500):
        half.write_bytes(broken)
        with pytest.raises(InputError, match=r"^\S+ is no whole reference \((?!.*whole).*\); keep it again"):
            load_side(half)
    kept.write_bytes(broken)
    with pytest.raises(InputError, match=r"no whole reference .*; keep it again, with --replace"):
        keep(base, "release-1")
    half.write_bytes(gzip.compress(b'{"format": 99}'))
    with pytest.raises(InputError, match="another format than 1"):
        load_side(half)


def test_a_lone_sample_file_is_a_side(tmp_path):
    base, cand = sides(tmp_path, LOST)
    (base / "20260101_000000_results.json").unlink()
    (task,) = compare(base / "20260101_000000_samples_ca_textvqa.jsonl", cand).tasks
    assert task.verdict == "regressed"
    assert "the baseline's version is not known" in task.notes


def test_json_is_in_percent_and_whole(tmp_path):
    found = compare(*sides(tmp_path, LOST))
    content = json.loads(to_json(found))
    (task,) = content["tasks"]
    assert content["regressed"] is True
    assert (content["tolerance"], content["alpha"]) == (1.0, 0.05)
    assert task["baseline_score"] == 60.0
    assert task["difference"] == pytest.approx(100 * found.tasks[0].pair.difference)
    assert task["ci95"][0] < task["ci90"][0] < task["difference"] < task["ci90"][1] < task["ci95"][1] < 0
    assert task["bootstrap_ci95"] == pytest.approx(task["ci95"], abs=1) and task["bootstrap_ci95"] != task["ci95"]
    assert len(task["flips"]) == task["improved"] + task["worsened"]
    assert task["flips"][0]["baseline_answer"] == "right"


def test_junit_fails_the_regressed_task_only_and_survives_odd_answers(tmp_path):
    odd = ["\x00\x1b[31m ]]> <b> & \ud7ff \uffff"] * 1000
    for side, scores in (("base", BEFORE), ("cand", LOST)):
        tasks = {
            "ca_gqa": task_samples("ca_gqa", scores, answers=odd if side == "cand" else None),
            "ca_okvqa": task_samples("ca_okvqa", BEFORE),
        }
        write_run(tmp_path / side, tasks)
    suites = ElementTree.fromstring(to_junit(compare(tmp_path / "base", tmp_path / "cand")))
    assert suites.attrib == {"tests": "2", "failures": "1", "errors": "0"}
    failed = {case.attrib["name"]: case.find("failure") is not None for case in suites.iter("testcase")}
    assert failed == {"ca_gqa": True, "ca_okvqa": False}
    assert ElementTree.fromstring(error_junit("no \x00")).find("testsuite/testcase/error").attrib["message"] == "no �"


def test_headline_says_all(tmp_path):
    (task,) = compare(*sides(tmp_path, NOISY)).tasks
    line = headline(task)
    assert line.startswith("ca_textvqa: unclear, ")
    assert f"about {task.samples_to_decide} documents would decide" in line
    assert "n = 1000" in line


def test_a_difference_at_the_tolerance_is_decided_by_no_number(tmp_path):
    (task,) = compare(*sides(tmp_path, NOISY)).tasks
    assert f"about {task.samples_to_decide} documents would decide if the difference stays" in headline(task)
    assert headline(replace(task, samples_to_decide=None)).endswith(
        "no number of documents would decide: the difference sits at the tolerance"
    )
