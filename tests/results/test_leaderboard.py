"""Rows, differences, merging, published values, and the CSV itself."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from harness_files import flipped, task_samples, write_run

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.comparisons import adjusted
from lmms_ca_plugin.results.leaderboard import leaderboard
from lmms_ca_plugin.results.published import SETS, published_value, tables
from lmms_ca_plugin.results.regression import compare
from lmms_ca_plugin.results.schema import COLUMNS, escape, read_csv, to_csv
from lmms_ca_plugin.results.statistics import mean_interval, paired_difference

DATA = Path(__file__).parent / "data"
BEFORE = [1.0] * 120 + [0.0] * 80
AFTER = flipped(BEFORE, 0.2, -0.05, seed=1)
CLUSTERS = [i // 4 for i in range(200)]
RECORD = {"entry": "contrastive", "parameters": {"rho": 0.2, "scope": "fusion"}, "samples": 200, "seconds": 50.0}


NO_VANILLA = "no run of vanilla is among these, so there are no differences to it."


def two_methods(folder, tasks=("ca_textvqa",), day="01", **kwargs):
    write_run(
        folder,
        {task: task_samples(task, BEFORE, clusters=CLUSTERS) for task in tasks},
        date=f"202601{day}_000000",
        record=RECORD | {"entry": "vanilla", "parameters": {}},
        **kwargs,
    )
    write_run(
        folder,
        {task: task_samples(task, AFTER, clusters=CLUSTERS) for task in tasks},
        date=f"202601{day}_000100",
        model="llava_contrastive",
        record=RECORD,
        **kwargs,
    )
    return folder


def rows_of(path, **wanted):
    return [row for row in read_csv(path) if all(row[name] == value for name, value in wanted.items())]


def test_every_column_is_as_specified():
    assert ",".join(COLUMNS) == (
        "model,revision,method,method_args,task,split,metric,score,stderr,ci95_low,ci95_high,n,documents,n_failed,"
        "n_empty,cluster_source,delta,delta_ci95_low,delta_ci95_high,p_value,p_holm,baseline,published,published_source,seconds,"
        "samples_per_second,peak_memory_gib,batch_size,dtype,device,seed,lmms_eval,transformers,torch,plugin,commit,date,"
        "command"
    )


def test_one_picture_has_a_difference_but_no_p_value(tmp_path):
    for task, clusters in (("ca_textvqa", [0] * 200), ("ca_okvqa", CLUSTERS)):
        for minute, (method, scores) in enumerate([("vanilla", BEFORE), ("contrastive", AFTER)]):
            samples = {task: task_samples(task, scores, clusters=clusters)}
            where = (tmp_path / task, samples, f"20260101_000{minute}00", f"llava_{method}")
            write_run(*where, record=RECORD | {"entry": method})
    leaderboard([tmp_path], tmp_path / "lb.csv")
    (one,) = rows_of(tmp_path / "lb.csv", method="contrastive", task="ca_textvqa")
    (many,) = rows_of(tmp_path / "lb.csv", method="contrastive", task="ca_okvqa")
    assert one["delta"] == many["delta"] != 0 and one["p_value"] is one["p_holm"] is None
    assert many["p_holm"] == many["p_value"] is not None


def test_a_row_with_its_difference(tmp_path):
    board = leaderboard([two_methods(tmp_path / "runs")], tmp_path / "lb.csv")
    assert board.notes == []
    (vanilla,) = rows_of(tmp_path / "lb.csv", method="vanilla")
    (ours,) = rows_of(tmp_path / "lb.csv", method="contrastive")
    alone = mean_interval(AFTER, CLUSTERS)
    pair = paired_difference(BEFORE, AFTER, CLUSTERS)
    expected = {
        "score": 100 * alone.mean,
        "stderr": 100 * alone.stderr,
        "ci95_low": 100 * alone.low,
        "ci95_high": 100 * alone.high,
        "delta": 100 * pair.difference,
        "delta_ci95_low": 100 * pair.low,
        "delta_ci95_high": 100 * pair.high,
        "p_value": pair.p_value,
        "p_holm": pair.p_value,
        "seconds": 50,
        "samples_per_second": 4,
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert (ours["n"], ours["n_failed"], ours["cluster_source"], ours["baseline"]) == (200, 0, "image", "vanilla")
    assert (vanilla["score"], vanilla["delta"], vanilla["p_value"], vanilla["baseline"]) == (60, None, None, "")


def test_holm_runs_over_the_tasks_of_one_comparison(tmp_path):
    tasks = [f"ca_{name}" for name in SETS]
    leaderboard([two_methods(tmp_path / "runs", tasks)], tmp_path / "lb.csv")
    ours = rows_of(tmp_path / "lb.csv", method="contrastive")
    assert len(ours) == 6
    for row in ours:  # the same numbers in each task, so that the adjustment is the full factor
        assert row["p_holm"] == pytest.approx(min(1, 6 * row["p_value"]), rel=1e-6)


def test_holm_takes_the_official_metrics_of_all_tasks_as_one_family():
    rows = [
        {"model": "m", "method": "dola", "documents": "d", "date": "1", "task": task, "metric": metric, "p_value": 0.03}
        for task, official in (("ca_textvqa", "textvqa_accuracy"), ("ca_vizwiz", "vizwiz_accuracy"))
        for metric in ("vqa_accuracy", official)
    ]
    assert [row["p_holm"] for row in adjusted(rows)] == [0.06] * 4


def test_holm_is_the_same_however_runs_are_fed_in(tmp_path):
    tasks = ["ca_gqa", "ca_okvqa", "ca_textvqa"]
    runs = [two_methods(tmp_path / task, [task]) for task in tasks]
    leaderboard(runs, tmp_path / "once.csv")
    for run in runs:
        piecemeal = leaderboard([run], tmp_path / "one_by_one.csv").rows
    assert (tmp_path / "once.csv").read_text() == (tmp_path / "one_by_one.csv").read_text()
    (ours,) = [row for row in piecemeal if (row["method"], row["task"]) == ("contrastive", "ca_gqa")]
    assert ours["p_holm"] == pytest.approx(3 * ours["p_value"])
    again = two_methods(tmp_path / "again", ["ca_gqa"], day="09")
    both = leaderboard([*runs, again], history=True).rows
    repeated = [row for row in both if (row["method"], row["task"]) == ("contrastive", "ca_gqa")]
    assert len(repeated) == 2, "an older run stands beside the newer"
    assert all(row["p_holm"] == pytest.approx(3 * row["p_value"]) for row in repeated), "a repeat is no other task"


OTHER = {"conversation": "processor", "dtype": "bfloat16"}
INPUTS = {"conversation": "vicuna_v1", "image_aspect_ratio": "pad", "max_pixels": 602112, "dtype": "float32"}


def asked_as(folder, method, scores, minute, gen_kwargs="", seed=0, first=0, **inputs):
    samples = {"ca_textvqa": task_samples("ca_textvqa", scores, clusters=CLUSTERS)}
    for sample in samples["ca_textvqa"]:
        sample["doc_id"] += first
    record = RECORD | INPUTS | {"entry": method, "parameters": {}, "seed": seed} | inputs
    config = {"gen_kwargs": gen_kwargs} if gen_kwargs else {}
    write_run(folder, samples, f"20260101_00{minute:02}00", f"llava_{method}", record=record, config=config)
    return folder


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"conversation": "processor"}, "conversation"),
        ({"image_aspect_ratio": "processor"}, "image_aspect_ratio"),
        ({"max_pixels": 40000}, "max_pixels"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"gen_kwargs": {"max_new_tokens": 1}}, "gen_kwargs"),
    ],
)
def test_a_difference_is_to_the_baseline_that_was_asked_alike(tmp_path, inputs, name):
    alike = asked_as(tmp_path / "alike", "vanilla", BEFORE, 0)
    other = asked_as(tmp_path / "other", "vanilla", AFTER[::-1], 1, **inputs)
    ours = asked_as(tmp_path / "ours", "contrastive", AFTER, 2)

    def delta(*runs):
        board = leaderboard(runs)
        (row,) = [row for row in board.rows if row["method"] == "contrastive"]
        return row.get("delta"), board.notes

    assert delta(alike, other, ours) == delta(alike, ours) and delta(alike, ours)[0]
    none, notes = delta(other, ours)
    assert none is None and notes[0].endswith(f"no difference, because vanilla was run with another {name}.")


def test_the_gate_notes_that_its_sides_were_asked_otherwise(tmp_path):
    sides = [asked_as(tmp_path / name, "vanilla", BEFORE, 0, **more) for name, more in (("a", {}), ("b", OTHER))]
    (task,) = compare(*sides).tasks
    assert any("run with another conversation, dtype" in note for note in task.notes)
    (task,) = compare(sides[0], sides[0]).tasks
    assert not any("run with another" in note for note in task.notes)


def test_other_documents_and_other_seeds_are_other_measurements(tmp_path):
    runs = [asked_as(tmp_path / "v", "vanilla", BEFORE, 0), asked_as(tmp_path / "c", "contrastive", AFTER, 1)]
    alone = leaderboard(runs).rows
    further = asked_as(tmp_path / "further", "vanilla", BEFORE, 2, first=200)
    seeded = asked_as(tmp_path / "seeded", "contrastive", BEFORE, 3, seed=1)
    board = leaderboard([*runs, further, seeded], tmp_path / "lb.csv")
    assert board.notes == [] and len(board.rows) == 4
    (ours,) = [row for row in board.rows if (row["method"], row["seed"]) == ("contrastive", "0")]
    assert ours in alone and ours["delta"]
    leaderboard([further], tmp_path / "lb.csv")
    assert len(read_csv(tmp_path / "lb.csv")) == 4


def test_a_row_keeps_its_difference_when_its_run_is_read_alone(tmp_path):
    runs = two_methods(tmp_path / "runs")
    leaderboard([runs], tmp_path / "lb.csv")
    once = (tmp_path / "lb.csv").read_text()
    (ours,) = [f for f in runs.rglob("*_results.json") if "000100" in f.name]
    assert leaderboard([ours], tmp_path / "lb.csv").notes == [NO_VANILLA]
    assert (tmp_path / "lb.csv").read_text() == once
    newer = tmp_path / "newer"
    samples = {"ca_textvqa": task_samples("ca_textvqa", AFTER, clusters=CLUSTERS)}
    write_run(newer, samples, "20260102_000000", "llava_contrastive", record=RECORD)
    assert leaderboard([newer], tmp_path / "lb.csv").notes[-1].startswith("1 rows lost their difference to a newer run")


def test_a_difference_that_a_newer_run_takes_away_is_said(tmp_path):
    leaderboard([two_methods(tmp_path / "runs")], tmp_path / "lb.csv")
    samples = {"ca_textvqa": task_samples("ca_textvqa", BEFORE, clusters=CLUSTERS)}
    write_run(tmp_path / "newer", samples, "20260102_000000", "llava_contrastive", record=RECORD)
    notes = leaderboard([tmp_path / "newer"], tmp_path / "lb.csv").notes
    assert notes[-1].startswith("1 rows lost their difference to a newer run without one")


def test_a_baseline_that_was_not_run_is_refused(tmp_path):
    said = r"baseline=contrastiv: none of these runs is of it. Did you mean 'contrastive'\? Methods among them: "
    with pytest.raises(InputError, match=said):
        leaderboard([two_methods(tmp_path / "runs")], tmp_path / "lb.csv", baseline="contrastiv")
    assert not (tmp_path / "lb.csv").exists()


def test_no_baseline_no_difference(tmp_path):
    samples = {"ca_textvqa": task_samples("ca_textvqa", AFTER, clusters=CLUSTERS)}
    write_run(tmp_path / "runs", samples, model="llava_contrastive", record=RECORD)
    leaderboard([tmp_path / "runs"], tmp_path / "lb.csv")
    for row in read_csv(tmp_path / "lb.csv"):
        assert [row[name] for name in ("delta", "delta_ci95_low", "delta_ci95_high", "p_value", "p_holm")] == [None] * 5
        assert row["baseline"] == ""


def test_other_documents_are_no_baseline(tmp_path):
    write_run(tmp_path / "a", {"ca_gqa": task_samples("ca_gqa", BEFORE[:50])}, record=RECORD | {"entry": "vanilla"})
    write_run(tmp_path / "b", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, record=RECORD)
    rows = leaderboard([tmp_path / "a", tmp_path / "b"]).rows
    assert all(row.get("delta") is None for row in rows)


def test_the_same_ids_with_other_questions_are_refused(tmp_path):
    write_run(tmp_path / "a", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, record=RECORD | {"entry": "vanilla"})
    other = task_samples("ca_gqa", BEFORE)
    other[5]["vqa_accuracy"]["answers"] = ["something else"] * 10
    write_run(tmp_path / "b", {"ca_gqa": other}, record=RECORD)
    with pytest.raises(InputError, match="bear the same ids but other questions"):
        leaderboard([tmp_path / "a", tmp_path / "b"])


def test_real_files_of_several_runs(tmp_path):
    board = leaderboard([DATA / "ca", DATA / "own", DATA / "limit"], tmp_path / "lb.csv", baseline="toy2")
    assert len(board.rows) == 2 * 18 + 6 + 6
    own = rows_of(tmp_path / "lb.csv", task="textvqa_val")
    assert [row["metric"] for row in own] == ["exact_match"]
    assert own[0]["cluster_source"] == "none"
    assert own[0]["score"] == pytest.approx(100 * 10 / 12)
    # a short run does not replace the long one
    assert {row["n"] for row in rows_of(tmp_path / "lb.csv", task="ca_gqa")} == {6, 12}
    ours = rows_of(tmp_path / "lb.csv", task="ca_textvqa", method="contrastive", metric="vqa_accuracy")
    assert ours[0]["delta"] == pytest.approx(100 * (8 - 4) / 12)
    assert ours[0]["n_empty"] == 1


def test_blank_answers_are_counted(tmp_path):
    samples = task_samples("ca_gqa", [1, 0, 0, 0], answers=["x", "", " \n", "-"])
    write_run(tmp_path / "r", {"ca_gqa": samples})
    assert leaderboard([tmp_path / "r"]).rows[0]["n_empty"] == 2


def test_failed_documents_make_the_score_invalid_not_0(tmp_path):
    write_run(tmp_path / "r", {"ca_gqa": task_samples("ca_gqa", [1, None, 1])})
    leaderboard([tmp_path / "r"], tmp_path / "lb.csv")
    (row,) = read_csv(tmp_path / "lb.csv")
    assert (row["n"], row["n_failed"], row["score"], row["stderr"], row["ci95_low"]) == (3, 1, None, None, None)


def test_mixed_scorer_versions_are_refused(tmp_path):
    write_run(tmp_path / "a", {"ca_gqa": task_samples("ca_gqa", BEFORE)})
    write_run(tmp_path / "b", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, version=2.0, model="llava_dola")
    with pytest.raises(InputError, match=r"ca_gqa was scored by version 1.0 .* and by version 2.0"):
        leaderboard([tmp_path / "a", tmp_path / "b"])


def test_the_newest_wins_and_history_keeps(tmp_path):
    write_run(tmp_path / "r", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, date="20260101_000000")
    write_run(tmp_path / "r", {"ca_gqa": task_samples("ca_gqa", AFTER)}, date="20260102_000000")
    newest = leaderboard([tmp_path / "r"], tmp_path / "lb.csv")
    assert [row["date"] for row in newest.rows] == ["2026-01-02T00:00:00"]
    assert newest.notes == [NO_VANILLA, "1 older runs of the same measurement were left out; --history keeps them."]
    both = leaderboard([tmp_path / "r"], tmp_path / "history.csv", history=True)
    assert len(both.rows) == 2 and both.notes == [NO_VANILLA]


def test_a_file_is_merged_into_and_an_older_run_does_not_win(tmp_path):
    write_run(tmp_path / "new", {"ca_gqa": task_samples("ca_gqa", BEFORE)}, date="20260102_000000")
    write_run(tmp_path / "old", {"ca_gqa": task_samples("ca_gqa", AFTER)}, date="20260101_000000")
    write_run(tmp_path / "other", {"ca_gqa": task_samples("ca_gqa", AFTER)}, pretrained="org/other")
    leaderboard([tmp_path / "new"], tmp_path / "lb.csv")
    once = (tmp_path / "lb.csv").read_text()
    assert leaderboard([tmp_path / "new"], tmp_path / "lb.csv").notes == [NO_VANILLA]
    assert (tmp_path / "lb.csv").read_text() == once
    board = leaderboard([tmp_path / "old"], tmp_path / "lb.csv")
    assert board.notes[1:] == ["1 older rows of the same measurement were replaced; --history keeps them."]
    assert (tmp_path / "lb.csv").read_text() == once
    leaderboard([tmp_path / "other"], tmp_path / "lb.csv")
    assert [row["model"] for row in read_csv(tmp_path / "lb.csv")] == ["org/llava", "org/other"]


def test_the_file_is_left_alone_when_an_input_is_bad(tmp_path):
    write_run(tmp_path / "r", {"ca_gqa": task_samples("ca_gqa", BEFORE)})
    leaderboard([tmp_path / "r"], tmp_path / "lb.csv")
    before = (tmp_path / "lb.csv").read_bytes()
    with pytest.raises(InputError):
        leaderboard([tmp_path / "r", tmp_path / "nowhere"], tmp_path / "lb.csv")
    assert (tmp_path / "lb.csv").read_bytes() == before


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "lb.csv"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match=r"lb\.csv cannot be written: disk full"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_formulas_are_escaped_in_text_and_numbers_are_not(tmp_path):
    row = dict.fromkeys(COLUMNS)
    row |= {"model": "=cmd|' /C calc'!A0", "method_args": "-1", "task": "@x", "command": "+1", "device": "\tx"}
    row |= {"delta": -3.5, "n": 7, "metric": "'quoted", "date": "2026"}
    text = to_csv([row])
    (cells,) = csv.DictReader(io.StringIO(text))
    assert cells["model"].startswith("'=cmd")
    assert (cells["method_args"], cells["task"], cells["command"], cells["device"]) == ("'-1", "'@x", "'+1", "'\tx")
    assert (cells["delta"], cells["n"]) == ("-3.5", "7")
    (tmp_path / "x.csv").write_text(text)
    (back,) = read_csv(tmp_path / "x.csv")
    assert {name: back[name] for name in ("model", "method_args", "metric", "delta")} == {
        "model": "=cmd|' /C calc'!A0",
        "method_args": "-1",
        "metric": "'quoted",
        "delta": -3.5,
    }
    assert escape("plain") == "plain"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("score,", "scoer,", 1), r"unknown column 'scoer'. Did you mean 'score'"),
        (lambda text: text.replace("stderr,", "", 1), "columns are missing or doubled: stderr"),
        (lambda text: text.replace("stderr,", "score,", 1), "columns are missing or doubled: stderr"),
        (lambda text: text[: text.rindex(",")] + "\n", "line 2 has 37 cells, not 38: it is half-written"),
        (lambda text: text.replace(",60.0,", ",sixty,", 1), "line 2: score is 'sixty', which is no number"),
        (lambda text: text.replace(",60.0,", ",nan,", 1), "line 2: score is nan"),
    ],
)
def test_a_csv_that_was_tampered_with(tmp_path, change, message):
    write_run(tmp_path / "r", {"ca_gqa": task_samples("ca_gqa", BEFORE)})
    leaderboard([tmp_path / "r"], tmp_path / "lb.csv")
    (tmp_path / "lb.csv").write_text(change((tmp_path / "lb.csv").read_text()))
    with pytest.raises(InputError, match=message):
        leaderboard([tmp_path / "r"], tmp_path / "lb.csv")


def test_a_lone_sample_file_earns_no_row(tmp_path):
    write_run(tmp_path, {"ca_gqa": task_samples("ca_gqa", BEFORE)}).unlink()
    with pytest.raises(InputError, match="nobody knows which model"):
        leaderboard([tmp_path / "20260101_000000_samples_ca_gqa.jsonl"])


@pytest.mark.parametrize(
    ("model", "method", "args", "task", "expected"),
    [
        ("llava-hf/llava-1.5-7b-hf", "vanilla", "", "ca_gqa", (66.0, "Song et al., Table 1")),
        ("llava-hf/llava-1.5-7b-hf", "llava_hf", "", "textvqa_val", (57.2, "Song et al., Table 1")),
        ("liuhaotian/llava-v1.5-7b", "contrastive", "rho=0.2,scope=fusion", "ca_okvqa", (55.4, "Song et al., Table 1")),
        ("llava-hf/llava-1.5-7b-hf", "contrastive", "scope=deep", "ca_gqa", (60.3, "Song et al., Table 3")),
        ("llava-hf/llava-1.5-7b-hf", "contrastive", "rho=0.5", "ca_gqa", (None, "")),
        ("llava-hf/llava-1.5-7b-hf", "contrastive", "mask_by=random", "ca_gqa", (None, "")),
        ("llava-hf/llava-1.5-7b-hf", "vicrop", "", "docvqa_val", (25.1, "Song et al., Table 2")),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", "dola", "", "ca_docvqa", (67.2, "Song et al., Table 2")),
        ("llava-hf/llava-1.5-13b-hf", "vanilla", "", "ca_gqa", (None, "")),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "vanilla", "", "ca_gqa", (None, "")),
        ("llava-hf/llava-1.5-7b-hf", "vanilla", "", "mini_gqa", (None, "")),
        ("llava-hf/llava-1.5-7b-hf", "var", "", "ca_gqa", (None, "")),
    ],
)
def test_published_values_stand_beside_the_same_experiment_only(model, method, args, task, expected):
    assert published_value(model, method, args, task) == expected


def test_published_stands_in_the_main_row_only(tmp_path):
    samples = task_samples("ca_gqa", BEFORE)
    for sample in samples:
        sample["word_overlap"] = sample["vqa_accuracy"]
    path = write_run(tmp_path / "r", {"ca_gqa": samples}, pretrained="llava-hf/llava-1.5-7b-hf", record=RECORD)
    content = json.loads(path.read_text())
    content["results"]["ca_gqa"]["word_overlap,none"] = 0.6
    content["higher_is_better"]["ca_gqa"]["word_overlap"] = True
    path.write_text(json.dumps(content))
    published = {row["metric"]: row.get("published") for row in leaderboard([tmp_path / "r"]).rows}
    assert published == {"vqa_accuracy": 69.4, "word_overlap": None}


def test_the_tables_are_whole():
    assert [len([row for row in tables() if row.table == number]) for number in (1, 2, 3)] == [13, 6, 4]
    assert all(math.isfinite(float(cell)) for row in tables() for cell in row.cells.values())
