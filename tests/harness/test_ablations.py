"""The named rows: every control is one, each differs from the default, and one command runs them."""

import json

import pytest
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.harness.ablations import ROWS, chosen_rows
from lmms_ca_plugin.harness.command import HarnessRun
from lmms_ca_plugin.methods.contrastive import Contrastive

PAPER = Trunk(
    model_type="llava",
    text_type="llama",
    num_blocks=32,
    hidden_size=4096,
    num_heads=32,
    max_positions=4096,
    image_token_id=32000,
    vocabulary=32064,
    tied_embeddings=False,
)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_plan_of_its_own_on_the_papers_trunk(row):
    method = Contrastive.from_options(ROWS[row])
    assert method.plan(PAPER).edits
    assert [other for other in ROWS if Contrastive.from_options(ROWS[other]) == method] == [row]


def test_the_rows_cover_controls_sites_blocks_and_preset():
    methods = [Contrastive.from_options(options) for options in ROWS.values()]
    assert {m.mask_by for m in methods} == {"contrastive", "random", "post", "none"}
    assert {m.site for m in methods} == {"residual", "post_norm", "kv", "value", "logit", "knockout"}
    assert {m.plan(PAPER).edits[0].block for m in methods} == {27, 28, 29, 30, 31}
    assert "wcd" in {m.preset for m in methods}


def test_an_unknown_row_is_named():
    with pytest.raises(OptionError, match="Unknown ablation 'site_kvs'. Did you mean 'site_kv'"):
        chosen_rows(("site_kvs",))


@pytest.fixture
def ran(monkeypatch):
    """Records the runs instead of running them, and leaves the result file that the harness would."""
    calls = []

    def call(run):
        calls.append((run.output.name, run.model, dict(run.model_args)))
        typed = {"model": run.model, "model_args": run.arguments, "tasks": ",".join(run.tasks), "limit": run.limit}
        (run.output / "x").mkdir(parents=True)
        file = run.output / "x" / "1_results.json"
        file.write_text(json.dumps({"config": {"resolved_cli_args": typed}}))
        return file

    monkeypatch.setattr(HarnessRun, "__call__", call)
    return calls


def test_one_command_runs_what_is_missing(tmp_path, ran):
    command = ["ablations", "site_kv", "mask_by_post", "--pretrained", "p", "--output", str(tmp_path)]
    assert CliRunner().invoke(build(), command).exit_code == 0
    assert ran == [
        ("vanilla", "llava_vanilla", {"pretrained": "p"}),
        ("mask_by_post", "llava_contrastive", {"pretrained": "p", "mask_by": "post"}),
        ("site_kv", "llava_contrastive", {"pretrained": "p", "site": "kv"}),
    ]
    assert CliRunner().invoke(build(), [*command, "review_31"]).exit_code == 0
    assert [name for name, *_ in ran[3:]] == ["review_31"]


@pytest.mark.parametrize("other", [["--pretrained", "q"], ["--limit", "5"], ["--tasks", "gqa"]], ids=" ".join)
def test_rows_of_another_run_are_not_mixed_in(tmp_path, ran, other):
    command = ["ablations", "site_kv", "--pretrained", "p", "--output", str(tmp_path)]
    assert CliRunner().invoke(build(), command).exit_code == 0
    result = CliRunner().invoke(build(), [*command, *other])
    assert result.exit_code == 1 and "is of another run" in str(result.exception)
    assert len(ran) == 2
