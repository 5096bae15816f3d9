"""Sweeps: which variants, what stands in the tidy table, what is drawn; and the paper's tables laid out."""

import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pandas as pd
import pytest
from harness_files import task_samples, write_run
from trunks import PAPER
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.cli import reproduce as cli_reproduce
from lmms_ca_plugin.cli import sweep as cli_sweep
from lmms_ca_plugin.cli._shared import without_network_if_bundled
from lmms_ca_plugin.discovery import modules
from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.engine.timing import Timed
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness.answering import Probed
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.published import SETS, tables
from lmms_ca_plugin.results.runs import read_runs
from lmms_ca_plugin.results.statistics import mean_interval, paired_difference
from lmms_ca_plugin.studies import sweeps, targets
from lmms_ca_plugin.studies.asked import Asked, given_options
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.cost import estimate
from lmms_ca_plugin.studies.reproduce import Reproduced, beside, laid_out, plans
from lmms_ca_plugin.studies.sweep import planned, sweep
from lmms_ca_plugin.studies.sweeps import load_sweep
from lmms_ca_plugin.studies.targets import Claim, load_target
from lmms_ca_plugin.studies.tidy import agreement, tidy

ASKED = Asked(("ca",), None)
SWEEPS = tuple(modules(sweeps.__name__))
TARGETS = tuple(modules(targets.__name__))


# ---- variants --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SWEEPS)
def test_every_variant_has_a_plan_on_the_papers_trunk(name):
    variants = load_sweep(name).variants(ASKED, PAPER)
    assert variants[0].name == ("distance" if name == "distance" else "vanilla")  # which answers as vanilla
    assert len({v.name for v in variants}) == len(variants)
    for variant in variants:
        variant.made().plan(PAPER)


def test_the_controls_are_each_one_option_away():
    variants = load_sweep("controls").variants(ASKED, PAPER)[1:]
    methods = [v.made() for v in variants]
    assert len(set(methods)) == len(methods) and methods[0] == Contrastive()
    assert {m.mask_by for m in methods} == {"contrastive", "random", "post", "none"}
    assert {m.site for m in methods} == {"residual", "post_norm", "kv", "value", "logit", "knockout"}
    assert {m.plan(PAPER).edits[0].block for m in methods} == {27, 28, 29, 30, 31}
    assert "wcd" in {m.preset for m in methods}


@pytest.mark.parametrize(
    ("blocks", "run", "left"),
    [
        (
            {"review_layer": 4, "scope": "1"},
            {"review_3", "review_5", "preset_wcd"},
            {"review_2": "scope=(1,) leaves no"},
        ),
        (
            {"review_layer": 3, "scope": "0"},
            {"review_2", "review_4", "review_5"},
            {"review_1": "scope=(0,) leaves no", "preset_wcd": "scope=(2,) leaves no"},
        ),
        (
            {"review_layer": 2, "scope": "0"},
            {"review_3", "review_4", "review_5"},
            {
                "review_0": "post_layer: the checkpoint has no block -1",
                "review_1": "scope=(0,) leaves no",
                "preset_wcd": "scope: block 2 is read",
            },
        ),
        (
            {"review_layer": 5, "post_layer": 3, "scope": "1:2"},
            {"review_4", "preset_wcd"},
            {"review_3": "post_layer: block 3 is read"},
        ),
    ],
)
def test_controls_without_room_for_their_blocks_are_left_out_and_say_why(asked, blocks, run, left):
    """The small checkpoint has six blocks."""
    plan = planned(["controls"], replace(asked, given={"contrastive": blocks}))
    elsewhere = {v.name for v in plan.study.variants if v.name.startswith(("review", "preset"))}
    assert elsewhere == run and set(plan.unfit) == set(left)
    for name, reason in left.items():
        assert reason in plan.unfit[name]


def test_the_verbs_say_which_variants_are_left_out(ran, checkpoint, monkeypatch):
    left = replace(ran["ratio"], missing={"rho_0.5": "no such block"})
    monkeypatch.setattr("lmms_ca_plugin.studies.sweep.sweep", lambda *_: {"ratio": left})
    shown = {"fig7": Reproduced(None, {}, {checkpoint: left}, ())}
    monkeypatch.setattr("lmms_ca_plugin.studies.reproduce.reproduce", lambda *_: shown)
    for verb in (["sweep", "ratio"], ["reproduce", "fig7"]):
        told = CliRunner().invoke(build(), [*verb, "--pretrained", checkpoint], catch_exceptions=False)
        assert "without rho_0.5: no such block" in told.output


@pytest.mark.parametrize("setting", ["mask_by=random", "mask_by=post", "lam=0.01", "site=knockout"])
def test_controls_take_what_the_user_sets(setting):
    given = given_options([f"contrastive.{setting}"])
    for variant in load_sweep("controls").variants(replace(ASKED, given=given), PAPER):
        variant.made().plan(PAPER)


def test_scopes_of_what_compares_no_blocks_are_refused():
    given = {"contrastive": {"mask_by": "random"}}
    with pytest.raises(
        OptionError, match="contrastive.mask_by=random compares no candidate blocks.*The sweep controls"
    ):
        load_sweep("scope").variants(replace(ASKED, given=given), PAPER)


def test_the_sweeps_of_the_paper_are_as_long_as_the_paper_needs():
    counted = {name: len(load_sweep(name).variants(ASKED, PAPER)) for name in SWEEPS}
    assert counted == {"controls": 15, "distance": 1, "layermask": 33, "methods": 6, "ratio": 12, "scope": 5}


def test_sweeps_that_run_together_share_their_variants(asked):
    plan = planned(["scope", "ratio"], asked)
    assert plan.study.name == "ratio+scope"
    assert [v.name for v in plan.study.variants][:6] == ["vanilla", "all", "deep", "shallow", "fusion", "rho_0.0"]
    assert len(plan.study.variants) == 5 + 11


def test_a_variant_that_does_not_fit_is_refused_before_anything_runs(asked, monkeypatch):
    """The small checkpoint's contrastive blocks are not known unless they are named, nor is ViCrop's."""
    monkeypatch.setattr("lmms_ca_plugin.studies.sweep.Runner", None)
    bare = replace(asked, given={"var": {"tau": 1.5}})
    with pytest.raises(OptionError, match="The paper's blocks are known only for"):
        sweep(["methods"], bare)
    left = planned(["methods"], bare, leave_out=True)
    assert [v.name for v in left.study.variants] == ["vanilla", "dola", "dola_high", "var"]
    assert set(left.unfit) == {"contrastive", "vicrop"}
    with pytest.raises(OptionError, match="scope: no variant fits .*The paper's blocks are known only"):
        planned(["scope"], bare, leave_out=True)
    with pytest.raises(OptionError, match="has no block 9"):  # what was asked for by name has to run
        planned(["methods"], replace(asked, given={"contrastive": {"review_layer": 9, "scope": "1:2"}}), leave_out=True)


def test_unknown_sweeps_and_targets_are_named():
    with pytest.raises(OptionError, match="Unknown sweep 'scopes'. Did you mean 'scope'?"):
        load_sweep("scopes")
    with pytest.raises(OptionError, match="Unknown table or figure of the paper 'table4'. Did you mean 'table"):
        load_target("table4")


@pytest.mark.parametrize("command", ["sweep scopes", "reproduce table4"])
def test_a_wrong_name_is_refused_before_anything_heavy_is_imported(command):
    told = """
import sys
from lmms_ca_plugin import cli

try:
    cli.main()
finally:
    print([m for m in ("torch", "pandas", "lmms_eval") if m in sys.modules])
"""
    words = [sys.executable, "-c", told, *command.split()]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "[]\n") and "Did you mean" in ran.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("review_layer=3", "--set review_layer=3: write METHOD.OPTION=VALUE"),
        ("contrastiv.rho=1", "Unknown method 'contrastiv'. Did you mean 'contrastive'?"),
        ("contrastive.rhoo=1", "Unknown option 'rhoo'. Did you mean 'rho'?"),
        ("contrastive.rho=3", "rho=3.0 is not a share"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        given_options([setting])


def test_settings_reach_the_methods():
    given = given_options(["contrastive.review_layer=20", "contrastive.scope=2:4", "var.tau=5"])
    asked = replace(ASKED, given=given)
    assert asked.variant("x", "contrastive", rho=0.5).made() == Contrastive(review_layer=20, scope=(2, 4), rho=0.5)


# ---- tables and figures ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ran(checkpoint, given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    asked = Asked(
        ("mini_gqa", "mini_textvqa"),
        folder,
        CheckpointOptions(checkpoint),
        given=given,
        batch_size=4,
        limit=6,
        timing=2,
    )
    return sweep(["scope", "ratio", "layermask"], asked)


def test_the_tidy_table_is_what_statistics_say(ran):
    table, finished = ran["ratio"].table, ran["ratio"].finished
    assert list(dict.fromkeys(table["variant"])) == [v.name for v in finished.study.variants]
    base = {run.task: run for run in read_runs([finished.results["vanilla"]])[0]}
    for variant in ("rho_0.5", "rho_1.0"):
        for run in read_runs([finished.results[variant]])[0]:
            (row,) = table[(table["variant"] == variant) & (table["task"] == run.task)].to_dict("records")
            clusters = run.documents["cluster"].tolist()
            alone = mean_interval(run.documents[run.main].to_numpy(), clusters)
            before = base[run.task].documents[run.main].to_numpy()
            pair = paired_difference(before, run.documents[run.main].to_numpy(), clusters)
            assert (row["score"], row["n"], row["x"]) == (100 * alone.mean, 6, float(variant[-3:]))
            assert (row["delta"], row["p_value"]) == (100 * pair.difference, pair.p_value)
    tested = table[table["variant"] != "vanilla"]
    adjusted = holm({str(i): p for i, p in enumerate(tested["p_value"])})
    np.testing.assert_allclose(tested["p_holm"], list(adjusted.values()))
    assert table.loc[table["variant"] == "vanilla", ["delta", "p_value", "x"]].isna().to_numpy().all()
    assert (table["seconds_per_question"] > 0).all() and set(table["limit"]) == {6}


def test_answers_of_runs_alone_are_compared_with_the_studys(ran):
    for swept in ran.values():
        table, variants = swept.table, len(swept.finished.study.variants)
        assert table["n_alone"].tolist() == [2] * 2 * variants  # of each task
        assert set(table["n_alone_differ"]) == {0} and table["alone_margin"].isna().all()
        assert swept.agreement == Agreement(4 * variants, ())


def test_answers_that_differ_are_counted_with_their_margins(ran):
    finished = ran["ratio"].finished
    answers = finished.answers["vanilla"]
    (first, second, *_), fake = answers, replace(next(iter(answers.values())), text="another", margin=0.25)
    alone = Timed(0.5, {first: fake, second: answers[second], ("mini_gqa", -1): fake})
    assert agreement(answers, alone) == Agreement(2, (0.25,))
    rows = tidy(finished, {"vanilla": {"mini_gqa": alone}}).query("variant == 'vanilla'").set_index("task")
    found = rows.loc["mini_gqa", ["n_alone", "n_alone_differ", "alone_margin", "seconds_per_question"]]
    assert found.tolist() == [2, 1, 0.25, 0.5]
    assert rows.loc["mini_textvqa", ["n_alone", "seconds_per_question"]].isna().all(), "it was not timed there"


def written(asked, tmp_path, scores, clusters, metric="vqa_accuracy"):
    """A study whose files are made up: scores by variant."""
    results = {}
    for variant, of in scores.items():
        samples = {"ca_textvqa": task_samples("ca_textvqa", of, metric, clusters)}
        results[variant] = write_run(tmp_path / variant, samples, metric=metric, record={"entry": variant})
    return Finished(
        asked.study("made", [asked.variant(v, "vanilla") for v in scores]), results, {v: {} for v in scores}
    )


def test_one_picture_has_no_p_value(asked, tmp_path):
    table = tidy(written(asked, tmp_path, {"vanilla": [1, 0, 1, 1], "other": [1, 0, 0, 0]}, [7, 7, 7, 7]))
    (row,) = table[table["variant"] == "other"].to_dict("records")
    assert row["delta"] == -50 and np.isnan(row["p_value"]) and np.isnan(row["p_holm"])


def test_captions_say_whether_intervals_are_clustered(asked, tmp_path):
    by_picture = written(asked, tmp_path / "ca", {"vanilla": [1, 0, 1, 1]}, [1, 1, 2, 2])
    assert caption_of(by_picture).interval == "95 % intervals, clustered by picture"
    assert tidy(by_picture)["cluster_source"].tolist() == ["image"]
    own = task_samples("gqa", [1, 0, 1, 1], "exact_match")
    for sample in own:
        sample["exact_match"] = sample["exact_match"]["score"]
    alone = write_run(tmp_path / "own", {"gqa": own}, metric="exact_match")
    assert caption_of(replace(by_picture, results={"vanilla": alone})).interval == "95 % intervals, not clustered"
    both = {"gqa": own, "ca_gqa": task_samples("ca_gqa", [1, 0], "exact_match")}
    mixed = write_run(tmp_path / "both", both, metric="exact_match")
    told = caption_of(replace(by_picture, results={"vanilla": mixed})).interval
    assert told == "95 % intervals, clustered by picture, but not on gqa"


@pytest.mark.parametrize(
    ("options", "label", "to"),
    [
        ({}, "Hellinger distance", "; distances to block 1, the last"),
        ({"distance": "jsd", "to_layer": 3}, "Jensen-Shannon divergence", "; distances to block 3"),
    ],
)
def test_the_figure_says_which_distance_was_measured_and_to_which_block(asked, tmp_path, options, label, to):
    made = written(asked, tmp_path, {"distance": [1, 0]}, [1, 2])
    asked = replace(asked, given={"distance": options})
    log = {"distances": {"0": 0.5, "1": 0.0}}
    answers = {"distance": {("ca_textvqa", 0): SimpleNamespace(log=log, image_tokens=16)}}
    variants = tuple(load_sweep("distance").variants(asked, PAPER))
    made = replace(made, study=replace(made.study, variants=variants), answers=answers)
    figure = load_sweep("distance").figures(made, None)["distance"]
    caption = figure.get_supxlabel().replace("\n", " ")  # wrapped, where the checkpoint's name is long
    assert figure.axes[0].get_ylabel() == label and f"; n = 1{to}; line: mean" in caption


def test_controls_are_paired_with_the_default_too(asked, tmp_path):
    scores = {"vanilla": [1, 0, 1, 1], "default": [1, 1, 1, 1], "mask_by_random": [1, 1, 0, 1], "x": [0, 0, 0, 1]}
    made = written(asked, tmp_path, scores, range(4))
    table = tidy(made)
    rows = table.set_index("variant")
    assert rows["default_delta"].dropna().to_dict() == {"mask_by_random": -25, "x": -75}
    assert rows.loc["mask_by_random", "delta"] == 0 and rows.loc["default", "delta"] == 25
    pair = paired_difference(np.array([1.0] * 4), np.array([0, 0, 0, 1.0]), list(range(4)))
    assert rows.loc["x", "default_p_value"] == pair.p_value
    assert rows.loc["x", "default_p_holm"] == 2 * pair.p_value  # of two pairs the smaller
    figures = load_sweep("controls").figures(made, table)
    labels = {name: figure.axes[0].get_xlabel() for name, figure in figures.items()}
    assert labels["controls_to_default"] == "difference to default, points"
    assert labels["controls"] == "difference to vanilla, points"
    assert [t.get_text() for t in figures["controls_to_default"].axes[0].get_yticklabels()] == ["mask_by_random", "x"]


def test_nothing_is_computed_twice_in_a_ratio_sweep(ran):
    same = ran["ratio"].table.groupby("variant")["n_same"].sum()
    assert same["rho_0.0"] == 12 and same["vanilla"] == 0


def test_every_sweep_leaves_its_table_and_figures(ran):
    for name, swept in ran.items():
        assert swept.csv.name == f"{name}.csv" and len(pd.read_csv(swept.csv)) == len(swept.table)
        assert swept.figures and all(path.stat().st_size > 1000 for path in swept.figures)
    assert {path.stem for path in ran["scope"].figures} == {"scope", "chosen"}


def test_claims_stand_beside_the_papers(ran):
    for target in ("fig2", "fig6", "fig7"):
        definition = load_target(target)
        claims = definition.claims(ran[definition.sweep])
        assert claims and all(claim.printed and claim.ours for claim in claims)
    (told,) = [c for c in load_target("fig6").claims(ran["scope"]) if c.task == "mini_gqa"]
    layer, share = re.fullmatch(r"(\d)\.?0? \((\d+) %\)", told.ours).groups()
    picked = [a.log["pre_layer"] for (task, _), a in ran["scope"].finished.answers["all"].items() if task == "mini_gqa"]
    assert round(100 * picked.count(int(layer)) / len(picked)) == int(share)


@pytest.mark.parametrize(
    ("checkpoint", "task", "printed", "why"),
    [
        ("llava-hf/llava-1.5-7b-hf", "ca_gqa", "0.2", ""),
        ("llava-hf/llava-1.5-7b-hf", "mini_gqa", "", "the paper does not know mini_gqa"),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", "ca_gqa", "", "the paper shows LLaVA-v1.5"),
        ("mini", "ca_gqa", "", "the paper shows LLaVA-v1.5"),
    ],
)
def test_the_papers_numbers_stand_beside_its_checkpoints_only(checkpoint, task, printed, why):
    made, table = Claim(task, "the best ratio", "0.2", "0.3"), run_of((1,) * 6, ("vanilla",))
    claim = beside(made, checkpoint, load_target("fig7"), table)
    assert (claim.printed, claim.why, claim.ours) == (printed, why, "0.3")


# ---- the paper's layout ----------------------------------------------------------------------------------------------
PAPERS = "contrast=abs,distance=hellinger,mask_by=contrastive,preset=paper,rho=0.2,site=residual"


def run_of(scores, variants, prefix="ca_", args=PAPERS):
    rows = [
        {
            "variant": variant,
            "method": "contrastive" if variant in ("all", "deep", "shallow", "fusion") else variant,
            "method_args": f"{args},scope={variant}" if variant in ("all", "deep", "shallow", "fusion") else "",
            "task": f"{prefix}{name}",
            "score": score,
            "ci95_low": score - 2,
            "ci95_high": score + 1,
            "n": 100,
            "limit": None,
            "delta": None if variant == "vanilla" else 2.0,
            "delta_ci95_low": 1.0,
            "delta_ci95_high": 3.0,
        }
        for variant in variants
        for name, score in zip(SETS, scores, strict=True)
    ]
    return pd.DataFrame(rows)


def test_claims_name_all_that_tie():
    ratios = pd.DataFrame(
        {"task": "ca_gqa", "x": [0.0, 0.5, 1.0], "score": [60.0, 60.0, 0.0], "delta": [0.0, 0.0, -60.0]}
    )
    ratios = ratios.assign(delta_ci95_low=-2.0, delta_ci95_high=2.0)
    best, _ = load_target("fig7").claims(SimpleNamespace(table=ratios))
    assert best.ours == "0.0, 0.5 (+0.0 [-2.0, +2.0] to vanilla)"
    logs = [{"pre_layer": block, "distances": {"2": 0.5, "4": 0.5, "8": 0.1}} for block in (2, 4, 4, 2)]
    answers = {("ca_gqa", i): SimpleNamespace(log=log, image_tokens=16) for i, log in enumerate(logs)}
    (most,) = load_target("fig6").claims(SimpleNamespace(finished=SimpleNamespace(answers={"all": answers})))
    assert most.ours == "2, 4 (50 % each)"


def test_printed_values_stand_beside_ours():
    table = run_of((60, 61, 62, 63, 64, 65), ("vanilla", "all", "deep", "shallow", "fusion"))
    layout = laid_out(load_target("table3"), {"llava-hf/llava-1.5-7b-hf": table})
    printed = {row.scope: row for row in tables() if row.table == 3}
    for scope in ("all", "deep", "shallow", "fusion"):
        kinds = {r["kind"]: r for r in layout[layout["row"] == scope].to_dict("records")}
        assert kinds["printed"]["gqa"] == printed[scope].cells["gqa"]
        assert kinds["ours"]["gqa"] == "60.00 [58.00, 61.00]" and kinds["ours"]["average"] == "62.50"
        assert kinds["ours - printed"]["gqa"] == f"{60 - float(printed[scope].cells['gqa']):+.2f}"
        assert kinds["ours - vanilla"]["docvqa"] == "+2.00 [+1.00, +3.00]"
    (vanilla,) = layout[layout["row"] == "vanilla"].to_dict("records")
    assert vanilla["kind"] == "ours" and vanilla["model"] == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.parametrize(
    "other",
    [
        {"prefix": "mini_"},
        {"args": PAPERS.replace("0.2", "0.5")},
        {"args": f"{PAPERS},review_layer=20"},
        {"args": f"{PAPERS},lam=0.5"},
        {"args": f"{PAPERS},profile=OTHER.json"},
    ],
)
def test_what_is_not_the_papers_experiment_is_not_compared(other):
    table = run_of((60, 61, 62, 63, 64, 65), ("vanilla", "all"), **other)
    layout = laid_out(load_target("table3"), {"llava-hf/llava-1.5-7b-hf": table})
    kinds = {r["kind"]: r for r in layout[layout["row"] == "all"].to_dict("records")}
    assert kinds["ours"]["gqa"] == "60.00 [58.00, 61.00]"
    assert kinds["ours - printed"]["note"] == "not compared: the tasks or options are not the paper's"
    assert not any(kinds["ours - printed"][name] for name in (*SETS, "average"))


def test_sets_of_different_sizes_give_a_range():
    table = run_of((60, 61, 62, 63, 64, 65), ("vanilla",))
    table.loc[table["task"] == "ca_vqav2", "n"] = 214354
    for limit, note in ((None, "n = 100 to 214354 per set"), (300000, "n = 100 to 214354 per set, a seeded subset")):
        layout = laid_out(load_target("table2"), {"mini": table.assign(limit=limit)})
        assert set(layout.loc[layout["kind"] == "ours", "note"]) == {note}


def test_two_tasks_of_one_set_are_refused(asked):
    for tasks in (("ca", "mini"), ("mini_gqa", "gqa")):
        with pytest.raises(OptionError, match=f"tasks {tasks[0]} and {tasks[1]} are both of gqa"):
            plans(["table3"], [asked.checkpoint], replace(asked, tasks=tasks))
    plans(["fig6"], [asked.checkpoint], replace(asked, tasks=("ca", "mini")))  # a figure has a panel for each
    both = pd.concat([run_of((1,) * 6, ("vanilla",)), run_of((2,) * 6, ("vanilla",), prefix="mini_")])
    with pytest.raises(OptionError, match="ca_gqa and mini_gqa are both of gqa"):
        laid_out(load_target("table3"), {"mini": both})


def test_rows_that_were_not_run_say_why():
    table = run_of((1, 2, 3, 4, 5, 6), ("vanilla", "contrastive", "dola", "vicrop"))
    layout = laid_out(load_target("table1"), {"some/llava-1.5-7b-hf": table})
    notes = layout[layout["kind"] == "printed"].set_index("model")["note"]
    assert notes["BLIP-2"] == "not run: the paper takes it from elsewhere, and does not say how it was asked"
    assert set(notes["LLaVA-v1.6"]) == {"not run: no checkpoint of LLaVA-v1.6 is given"}
    assert set(notes["LLaVA-v1.5"]) == {""}


def test_a_method_that_does_not_fit_is_a_row_with_its_reason():
    table, unfit = run_of((1, 2, 3, 4, 5, 6), ("vanilla", "dola")), {"vicrop": "no such block", "var": "no sinks"}
    layout = laid_out(load_target("table2"), {"a/llava-1.5-7b-hf": table, "b": table}, {"b": unfit})
    told = layout[layout["model"] == "b"].set_index("row")["note"]
    assert (told["vicrop"], told["var"]) == ("not run: no such block", "not run: no sinks")
    layout = laid_out(load_target("table2"), {"a/llava-1.5-7b-hf": table}, {"a/llava-1.5-7b-hf": unfit})
    rows = layout[(layout["row"] == "vicrop") & (layout["model"] == "LLaVA-v1.5")]
    assert rows[["kind", "note"]].to_numpy().tolist() == [["printed", "not run: no such block"]]
    assert (layout.loc[layout["row"] == "var", "note"] == "not run: no sinks").all()


def test_a_checkpoint_the_paper_does_not_know_stands_alone():
    layout = laid_out(load_target("table2"), {"mini": run_of((1, 2, 3, 4, 5, 6), ("vanilla", "dola"))})
    mine = layout[layout["model"] == "mini"]
    assert set(mine["kind"]) == {"ours", "ours - vanilla"} and set(mine["row"]) == {"vanilla", "dola"}
    assert (layout.loc[layout["kind"] == "printed", "note"] != "").all()


def test_targets_need_a_checkpoint(asked):
    with pytest.raises(OptionError, match="name at least one checkpoint, and each once"):
        plans(["table3"], [], asked)


def test_a_cost_counts_what_is_known_with_the_weights_alone(asked, monkeypatch):
    """VAR's edits begin at block 2 of 6, but only the loaded weights tell which sinks there are."""
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.Answering.probed", lambda *_: Probed(1, 1.0, 8))
    plan = planned(["methods"], asked)
    few = tuple(v for v in plan.study.variants if v.name in ("vanilla", "var", "vicrop"))
    cost = estimate(replace(plan, study=replace(plan.study, variants=few)), 1)
    assert (cost.passes, cost.passes_alone, cost.makes_inputs) == (6 + 4 + 6, 18, ("vicrop",))
    assert cost.probed.hours == pytest.approx(8 / 3600) and 0 < cost.memory_gib < 1e5


def test_targets_share_what_they_have_in_common(asked):
    """Tables 1 and 2 are one sweep; Table 3 and Figure 7 share a pass of the baseline."""
    folders = [
        plans([name], [asked.checkpoint], asked)[asked.checkpoint.pretrained].study.output
        for name in ("table1", "table2")
    ]
    assert folders[0] == folders[1]
    (plan,) = plans(["table3", "fig7", "fig6"], [asked.checkpoint], asked).values()
    assert list(plan.parts) == ["scope", "ratio"] and len(plan.study.variants) == 5 + 11


# ---- the command line ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "argument", "names"), [(cli_sweep.sweep, "names", SWEEPS), (cli_reproduce.reproduce, "targets", TARGETS)]
)
def test_the_help_lists_all_there_are(verb, argument, names):
    """The verbs write the names out: to ask the folders would import torch and matplotlib for a line of help."""
    told = get_type_hints(verb, include_extras=True)[argument].__metadata__[0].help.partition(";")[0]
    assert set(re.split(r", | or ", told)) == set(names)


def test_reproduce_and_its_cost(asked, checkpoint):
    settings = ["--set", "contrastive.review_layer=5", "--set", "contrastive.scope=1:2"]
    common = ["--pretrained", checkpoint, "--tasks", "mini_gqa", "--limit", "3", "-o", str(asked.output), *settings]
    told = CliRunner().invoke(build(), ["reproduce", "table3", *common, "--plan", "2"])
    assert told.exit_code == 0, told.output
    assert "at most 10 (one by one: 30)" in told.output  # six blocks, and one more for each of four variants
    assert not asked.output.exists()
    made = CliRunner().invoke(build(), ["reproduce", "table3,fig6", *common])
    assert made.exit_code == 0 and "not run: no checkpoint of LLaVA-v1.5 is given" in made.output, made.output
    assert list((asked.output / "table3").glob("*.csv"))
    assert "nothing printed (the paper shows LLaVA-v1.5); ours" in made.output
    assert len(list(asked.output.rglob("journal.jsonl"))) == 1


@pytest.mark.parametrize(
    ("checkpoints", "tasks", "offline"),
    [
        (["mini"], "mini", True),
        (["mini"], "mini_gqa, mini_docvqa", True),
        (["mini"], "mini,ca_gqa", False),
        (["mini"], "minigpt", False),
        (["mini", "llava-hf/llava-1.5-7b-hf"], "mini", False),
    ],
)
def test_the_network_is_left_alone_only_where_all_is_bundled(monkeypatch, tmp_path, checkpoints, tasks, offline):
    monkeypatch.setattr("lmms_ca_plugin.cli._shared.os.environ", environment := {})
    monkeypatch.setattr("lmms_ca_plugin.checkpoints.bundled", lambda: {"mini": tmp_path})
    without_network_if_bundled(checkpoints, tasks)
    assert ("HF_HUB_OFFLINE" in environment) == offline


def test_that_is_settled_before_anything_reads_it():
    """In a process of its own: here, all is imported already."""
    told = """
import importlib, sys
from typer.testing import CliRunner
from lmms_ca_plugin.cli import build

for words in (["sweep", "ratio"], ["profile", "mini"], ["reproduce", "fig7"]):
    def stop(checkpoints, tasks):
        print(checkpoints, tasks, "huggingface_hub" in sys.modules)
        sys.exit()

    importlib.import_module(f"lmms_ca_plugin.cli.{words[0]}").without_network_if_bundled = stop
    print(CliRunner().invoke(build(), words).output, end="")
"""
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["['mini'] mini False", "['mini'] mini_gqa False", "['mini'] mini False"]
