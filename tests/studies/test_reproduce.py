"""Numbers of the paper stand beside its own settings only, and targets that run together do so in any order."""

from dataclasses import replace

import pandas as pd
import pytest

from lmms_ca_plugin.engine.load import InputOptions
from lmms_ca_plugin.errors import CheckpointError, OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.results.published import BENCHMARK_OF
from lmms_ca_plugin.studies.reproduce import beside, plans, reproduce
from lmms_ca_plugin.studies.targets import Claim, load_target

LLAVA = "llava-hf/llava-1.5-7b-hf"


def claimed(target, *runs):
    """What becomes of a number of the paper beside runs of (method, options)."""
    table = pd.DataFrame([("vanilla", ""), *runs], columns=["method", "method_args"])
    claim = beside(Claim("ca_gqa", "the best", "0.2", "0.3"), LLAVA, load_target(target), table)
    return claim.printed, claim.why


@pytest.mark.parametrize(
    ("target", "method", "own", "other"),
    [
        ("fig2", "layermask", ("layer=0", "layer=31"), "mode=knockout"),
        ("fig6", "contrastive", ("scope=all", "scope=2:4"), "review_layer=20"),
        ("fig7", "contrastive", ("rho=0.0", "rho=1.0"), "mask_by=random"),
        ("fig7", "contrastive", ("rho=0.0", "rho=1.0"), "scope=deep"),
    ],
)
def test_a_figures_numbers_stand_beside_the_papers_options_only(target, method, own, other):
    assert claimed(target, *((method, options) for options in own)) == ("0.2", "")
    assert claimed(target, *((method, f"{options},{other}") for options in own)) == ("", f"not the paper's: {other}")


def test_targets_in_another_order_are_the_same_study(asked):
    orders = (["table3", "fig7"], ["fig7", "table3"])
    first, second = (plans(names, [asked.checkpoint], asked)[asked.checkpoint.pretrained].study for names in orders)
    assert (first.output, first.identity) == (second.output, second.identity)


@pytest.fixture
def as_the_papers(asked, monkeypatch):
    """The small checkpoint passes for the paper's, and a mini set for one of the paper's."""
    for module in ("studies.reproduce", "results.published"):
        monkeypatch.setattr(f"lmms_ca_plugin.{module}.printed_model", lambda _: "LLaVA-v1.5")
    monkeypatch.setitem(BENCHMARK_OF, "mini_gqa", "gqa")
    return replace(asked, tasks=("mini_gqa",), limit=2)


def test_figures_2_and_5_run_together(as_the_papers, monkeypatch):
    checkpoint = as_the_papers.checkpoint
    made = reproduce(["fig2", "fig5"], [checkpoint], as_the_papers)
    assert [claim.printed for claim in made["fig2"].claims[checkpoint.pretrained]] == ["2, 4, 8, 11, 12, 13, 29"]
    table = made["fig5"].swept[checkpoint.pretrained].table
    assert table["variant"].tolist() == ["distance"] and table["delta"].isna().all()
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.Answering.family", None)  # nothing is computed again
    assert reproduce(["fig5", "fig2"], [checkpoint], as_the_papers)["fig2"].files == made["fig2"].files


def test_every_checkpoint_is_looked_at_before_the_first_runs(asked, tmp_path):
    absent = replace(asked.checkpoint, pretrained=str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match="absent"):
        reproduce(["fig2"], [asked.checkpoint, absent], replace(asked, tasks=("mini_gqa",), limit=2))
    assert not asked.output.exists()


def test_the_options_of_a_run_and_of_its_inputs_are_compared(as_the_papers):
    given, inputs = {"layermask": {"mode": "knockout"}}, InputOptions(image_aspect_ratio="processor")
    asked = replace(as_the_papers, given=given, inputs=inputs)
    (claim,) = reproduce(["fig2"], [asked.checkpoint], asked)["fig2"].claims[asked.checkpoint.pretrained]
    assert (claim.printed, claim.why) == ("", "not the paper's: image_aspect_ratio=processor, mode=knockout")


def test_a_method_that_fails_alone_is_a_row_with_its_reason(asked, monkeypatch):
    def refuses(self, questions, passes):
        raise OptionError("two pictures")

    asked = replace(asked, tasks=("mini_gqa",))
    with monkeypatch.context() as broken:
        broken.setattr(load_method("vicrop"), "prepare", refuses)
        made = reproduce(["table2"], [asked.checkpoint], asked)["table2"]
    layout = made.layout.astype(str)
    rows = {row[1]: " ".join(row) for row in layout.itertuples(index=False)}
    assert any("two pictures" in row for row in rows.values()), rows
    swept = made.swept[asked.checkpoint.pretrained]
    assert swept.finished.results.keys() >= {"vanilla", "contrastive"}
    missing = pd.read_csv(swept.csv.with_name("methods_missing.csv"))
    assert list(missing.variant) == ["vicrop"] and "two pictures" in missing.reason[0]
    reproduce(["table2"], [asked.checkpoint], asked)
    assert "vicrop" in set(pd.read_csv(swept.csv).variant)
    assert not swept.csv.with_name("methods_missing.csv").exists(), "nothing is missing any more"
