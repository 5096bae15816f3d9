"""The paper's table shape."""

import csv
import io
import math

import pytest
from harness_files import task_samples, write_run

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.results.leaderboard import leaderboard
from lmms_ca_plugin.results.published import SETS
from lmms_ca_plugin.results.wide import _own, render, wide_tables
from lmms_ca_plugin.scoring.documents import BENCHMARKS

CHECKPOINT = "llava-hf/llava-1.5-7b-hf"


def six_sets(folder, right, sets=SETS, method="vanilla", date="20260101_000000", prefix="ca_", **kwargs):
    """A run per main metric, because a results file in these tests has one metric."""
    for second, (votes, metric) in enumerate([(True, "vqa_accuracy"), (False, "vqa_exact")]):
        chosen = {
            f"{prefix}{name}": task_samples(name, [1] * right + [0] * (100 - right), metric)
            for name in sets
            if BENCHMARKS[name].votes == votes
        }
        if chosen:
            record = {"entry": method, "parameters": kwargs.get("parameters", {})}
            stamp = f"{date[:-1]}{second}"
            write_run(folder, chosen, stamp, f"llava_{method}", CHECKPOINT, metric=metric, record=record)


def cells(table, form="csv"):
    return list(csv.reader(io.StringIO(render(table, form))))


def test_two_methods_with_printed_values(tmp_path):
    six_sets(tmp_path, 50)
    six_sets(tmp_path, 70, method="contrastive", date="20260101_000100")
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    header, vanilla, printed, ours, ours_printed = cells(table)
    assert header == ["Model", "Method", "GQA", "VQAv2", "OKVQA", "VizWiz", "TextVQA", "DocVQA", "Average"]
    assert vanilla[:3] == [CHECKPOINT, "vanilla", "50.00 [40.2, 59.8]"]
    assert vanilla[-1] == "50.00"
    assert printed[1:3] == ["vanilla, printed (Song et al., Table 1)", "66.00"]
    assert printed[-1] == "55.19", "as printed, although its cells average to 55.20"
    assert ours[2] == "70.00 [60.2, 78.2]*"
    assert ours_printed[-1] == "58.25"
    assert "vqa_accuracy, on GQA and DocVQA vqa_exact" in table.caption


def test_vanilla_is_a_models_first_line_whichever_ran_first(tmp_path):
    six_sets(tmp_path, 70, method="contrastive", parameters={"rho": 0.5})
    six_sets(tmp_path, 50, date="20260101_000100")
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    assert [line[1].partition(",")[0] for line in cells(table)[1:]] == ["vanilla", "vanilla", "contrastive"]


def test_nothing_is_printed_below_other_settings_than_the_papers(tmp_path):
    six_sets(tmp_path, 50, method="contrastive", parameters={"rho": 0.2, "lam": 0.5})
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    assert [line[1] for line in cells(table)[1:]] == ["contrastive"]


def test_seeds_number_formats_and_other_documents_are_lines_of_their_own(tmp_path):
    six_sets(tmp_path, 50)
    rows = leaderboard([tmp_path]).rows
    others = [{**row, "seed": "7", "date": "2027"} for row in rows], [{**row, "dtype": "bfloat16"} for row in rows]
    elsewhere = [{**row, "documents": "abc", "date": "2020"} for row in rows]
    (table,) = wide_tables([*rows, *others[0], *others[1], *elsewhere])
    names = {line[1] for line in cells(table)[1:] if "printed" not in line[1]}
    assert {name.partition(" (")[2] for name in names} == {
        "seed=0, dtype=none)",
        "seed=7, dtype=none)",
        "seed=0, dtype=bfloat16)",
        "seed=0, dtype=none, documents=abc)",
    }


def test_a_missing_interval_is_no_number_in_the_table(tmp_path):
    six_sets(tmp_path, 50)
    rows = [
        {**row, "stderr": math.nan, "ci95_low": math.nan, "ci95_high": math.nan} for row in leaderboard([tmp_path]).rows
    ]
    (table,) = wide_tables(rows)
    assert cells(table)[1][2] == "50.00"


def test_no_average_over_fewer_sets(tmp_path):
    six_sets(tmp_path, 50, sets=("gqa", "vqav2", "okvqa", "vizwiz", "textvqa"))
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    assert cells(table)[1][-2:] == ["", ""]


def test_variants_of_a_method_are_named_by_what_differs(tmp_path):
    for minute, scope in enumerate(["fusion", "deep"]):
        six_sets(
            tmp_path,
            50,
            method="contrastive",
            date=f"20260101_000{minute}00",
            parameters={"rho": 0.2, "scope": scope},
        )
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    names = {line[1] for line in cells(table)[1:] if "printed" not in line[1]}
    assert names == {"contrastive (scope=fusion)", "contrastive (scope=deep)"}


@pytest.mark.parametrize(
    ("variants", "names"),
    [
        (["site=kv", "site=residual", "rho=0.2,site=residual"], ["site=kv", "", "rho=0.2"]),
        (["a=1,b=1", "a=1,b=2"], ["b=1", "b=2"]),  # no majority
        (["a=1,b=1", "a=1,b=1", "a=1"], ["", "", "no b"]),
        (["", ""], ["", ""]),
    ],
)
def test_what_most_variants_have_is_no_name(variants, names):
    assert [", ".join(_own(variant, variants)) for variant in variants] == names


def test_a_newer_run_on_fewer_documents_does_not_replace_the_full_one(tmp_path):
    six_sets(tmp_path, 50)
    few = {f"ca_{name}": task_samples(name, [1, 1, 1, 0]) for name in ("vqav2", "okvqa")}
    write_run(tmp_path, few, "20260101_000500", "llava_vanilla", CHECKPOINT, record={"entry": "vanilla"})
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    ours = {line[1]: line for line in cells(table)[1:] if "printed" not in line[1]}
    assert set(ours) == {"vanilla", "vanilla (n=4)"}
    assert ours["vanilla"][3].startswith("50.00") and ours["vanilla"][-1] == "50.00"
    assert ours["vanilla (n=4)"][2] == "" and ours["vanilla (n=4)"][3].startswith("75.00")


def test_families_do_not_share_a_table(tmp_path):
    six_sets(tmp_path, 50)
    six_sets(tmp_path, 60, prefix="mini_", date="20260101_000200")
    ours, mini = wide_tables(leaderboard([tmp_path]).rows)
    assert ours.caption.startswith("Tasks ca_*")
    assert mini.caption.startswith("Tasks mini_*")
    assert (cells(ours)[1][-1], cells(mini)[1][-1]) == ("50.00", "60.00")
    assert len(cells(mini)) == 2  # nothing is printed for them


def test_markdown_and_latex(tmp_path):
    six_sets(tmp_path, 50)
    (table,) = wide_tables(leaderboard([tmp_path]).rows)
    markdown = render(table, "markdown")
    assert f"| {CHECKPOINT} | vanilla | 50.00 [40.2, 59.8] |" in markdown
    assert markdown.count("\n|") == 4
    latex = render(table, "latex")
    assert r"\begin{tabular}{llrrrrrrr}" in latex
    assert "50.00 [40.2, 59.8]" in latex
    assert r"Tasks ca\_*: vqa\_accuracy" in latex
    assert r"95 \% interval" in latex


def test_rows_of_other_tasks_make_no_table(tmp_path):
    write_run(tmp_path, {"pope": task_samples("pope", [1, 0, 1])})
    with pytest.raises(InputError, match="No row is of one of the six sets"):
        wide_tables(leaderboard([tmp_path]).rows)
