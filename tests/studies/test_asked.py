"""What a user asks of studies: what would do nothing, or make names untrue, is refused before anything is loaded."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from trunks import PAPER
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.cli._shared import asked_of
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.harness import loaded
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.results.profiles import ProfileRules
from lmms_ca_plugin.studies.asked import Asked, given_options
from lmms_ca_plugin.studies.every_method import declare
from lmms_ca_plugin.studies.explain import read_picture
from lmms_ca_plugin.studies.profile import profile
from lmms_ca_plugin.studies.sweeps import load_sweep
from lmms_ca_plugin.studies.tidy import chosen, distances

BOMB = Path(__file__).parents[3] / "shared" / "faults" / "bomb_400Mpx.png"


def refusal(*arguments):
    result = CliRunner().invoke(build(), list(arguments))
    assert isinstance(result.exception, OptionError)
    return str(result.exception)


@pytest.mark.parametrize("verb", [("sweep", "scope"), ("reproduce", "table3"), ("profile", "mini")])
def test_a_checkpoint_among_the_model_args_is_refused(verb):
    """It used to be overwritten by the default, and another checkpoint's numbers came out."""
    said = refusal(*verb, "--model-args", "pretrained=org/llava,dtype=float32")
    assert said.startswith("--model-args pretrained=org/llava: ") and "Give it as --pretrained" in said


@pytest.mark.parametrize(
    ("verb", "method", "runs"),
    [
        (("sweep", "distance"), "contrastive", "distance"),
        (("sweep", "layermask,ratio"), "var", "contrastive, layermask, vanilla"),
        (("reproduce", "fig5,fig2"), "dola", "distance, layermask, vanilla"),
    ],
)
def test_options_of_a_method_that_no_variant_runs_are_refused(verb, method, runs):
    option = {"contrastive": "rho=0.5", "var": "keep=0.5", "dola": "norm=true"}[method]
    said = refusal(*verb, "--set", f"{method}.{option}")
    assert f"runs no {method}, so it would do nothing. Methods that it runs: {runs}." in said


def test_options_of_a_method_that_explain_does_not_ask_are_refused():
    with pytest.raises(OptionError, match="--set distance...: distance answers as vanilla and is not asked"):
        declare(PAPER, given_options(["distance.to_layer=3"]))


@pytest.mark.parametrize(
    ("sweep", "setting"),
    [("layermask", "layermask.layer=3"), ("ratio", "contrastive.rho=0.5"), ("methods", "dola.layers=2:4")],
)
def test_an_option_that_the_study_varies_itself_is_refused(sweep, setting):
    asked = Asked(("mini",), Path(), given=given_options([setting]))
    with pytest.raises(OptionError, match=f"--set {setting.split('=')[0]}: the study {sweep} varies it itself"):
        load_sweep(sweep).variants(asked, PAPER)


def test_what_is_given_twice_is_refused():
    with pytest.raises(OptionError, match=r"--set contrastive.rho is given twice, as 0.3 and as 0.4. Give it once."):
        given_options(["contrastive.rho=0.3", "contrastive.rho=0.4"])


def test_a_task_named_twice_is_asked_once():
    assert asked_of(["mini"], "", "mini_gqa, mini_gqa", None, output=Path()).tasks == ("mini_gqa",)


def test_fusion_blocks_are_named_by_their_numbers():
    named = Asked(("mini",), Path(), given=given_options(["contrastive.scope=2:4:8"]))
    by_name = {variant.name: variant.made() for variant in load_sweep("scope").variants(named, PAPER)}
    assert (by_name["fusion"].scope, by_name["deep"].scope) == ((2, 4, 8), "deep")
    with pytest.raises(OptionError, match="contrastive.scope=shallow: .* Allowed: blocks joined by colons, e.g. 2:4:8"):
        load_sweep("scope").variants(replace(named, given=given_options(["contrastive.scope=shallow"])), PAPER)


@pytest.mark.parametrize("given", [["scope=4:8", "lam=0.5", "distance=hellinger"], ["site=knockout", "mask_by=random"]])
def test_the_presets_row_has_the_presets_options_whatever_else_was_given(given):
    (row,) = preset_row(32, *given)
    assert {name: getattr(row, name) for name in Contrastive.presets["wcd"]} == Contrastive.presets["wcd"]
    assert (row.site, row.mask_by) == ("residual", "contrastive")


def test_the_presets_row_goes_by_the_checkpoints_other_blocks():
    (row,) = preset_row(12, "scope=0:1", "review_layer=4")
    assert (row.scope, row.review_layer) == ((2,), 4)


def preset_row(blocks, *settings):
    given = given_options([f"contrastive.{setting}" for setting in settings])
    variants = load_sweep("controls").variants(Asked(("mini",), Path(), given=given), replace(PAPER, num_blocks=blocks))
    return [variant.made() for variant in variants if variant.name == "preset_wcd"]


# ---- what cannot be read or written ----------------------------------------------------------------------------------
@pytest.mark.skipif(not BOMB.is_file(), reason="../shared/faults is not beside this checkout")
def test_a_picture_of_too_many_pixels_is_named():
    with pytest.raises(InputError, match="bomb_400Mpx.png cannot be read as a picture"):
        read_picture(BOMB)


def test_a_profile_is_a_file(asked, tmp_path):
    with pytest.raises(InputError, match=f"output={tmp_path} is a folder. Give the file"):
        profile(asked, tmp_path, ProfileRules())


def test_data_that_cannot_be_loaded_are_named_with_their_cause(monkeypatch):
    class Retried(Exception):
        last_attempt = SimpleNamespace(exception=lambda: ConnectionError("no route to the hub"))

    def fails(*_):
        raise Retried

    monkeypatch.setattr(loaded, "get_task_dict", fails)
    with pytest.raises(
        InputError, match="tasks=mini_gqa: their data cannot be loaded: ConnectionError: no route to the"
    ):
        loaded.load_tasks(["mini_gqa"], None, 0)


# ---- questions without pictures --------------------------------------------------------------------------------------
def answered(image_tokens, block):
    log = {"pre_layer": block, "distances": {0: 0.1 * block, 4: 0.5}}
    return Answer("a", 50, image_tokens, 1, log)


def test_questions_without_pictures_choose_no_block_and_have_no_distance():
    answers = {("t", 0): answered(16, 4), ("t", 1): answered(0, 0), ("u", 0): answered(0, 0)}
    counted = chosen(answers)
    assert counted[["task", "layer", "share", "n"]].to_numpy().tolist() == [["t", 0, 0.0, 1], ["t", 4, 1.0, 1]]
    assert set(distances(answers)["doc_id"]) == {0} and set(distances(answers)["task"]) == {"t"}
    for table in (chosen, distances):
        with pytest.raises(InputError, match="No question of these tasks shows a picture"):
            table({("t", 1): answered(0, 0)})
