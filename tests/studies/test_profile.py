"""`lmms-ca profile`: the study behind it, the file that contrastive takes, and the refusal to guess."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.load import CheckpointOptions, describe
from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.layer_profile import read_profile
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.results.profiles import ProfileRules
from lmms_ca_plugin.studies.profile import profile, study_of


def test_every_block_is_masked_in_both_modes(asked):
    variants = study_of(asked).variants
    assert [v.name for v in variants[:3]] == ["vanilla", "zero_L0", "zero_L1"] and len(variants) == 1 + 2 * 6
    assert {(v.options["mode"], v.options["layer"]) for v in variants[1:]} == {
        (mode, n) for mode in ("zero", "knockout") for n in range(6)
    }


def test_a_profile_is_written_and_contrastive_refuses_to_guess(asked, checkpoint, tmp_path):
    """Random weights answer nothing right, so no block can matter: the honest answer is none."""
    file = tmp_path / "profile.json"
    made = profile(replace(asked, tasks=("mini_gqa",), limit=60, batch_size=20), file, ProfileRules())
    layers = read_profile(file)
    assert layers == made.profile.layers and (layers.fusion, layers.post, layers.review) == ((), None, None)
    assert layers.checkpoint_sha == checkpoint_sha(asked.checkpoint) and layers.num_blocks == 6
    held = json.loads(file.read_text())
    assert [at["block"] for at in held["curves"]] == list(range(6)) and held["calibration"]["documents"] == 60
    assert all(at["knockout"]["runaway"]["mean"] == 100 for at in held["curves"])  # this model never ends
    assert all(path.stat().st_size > 1000 for path in made.figures)
    trunk = describe(asked.checkpoint).trunk
    with pytest.raises(OptionError, match="says that no review block was found. Name one with review_layer"):
        Contrastive.from_options({"profile": str(file)}).plan(trunk)
    told = CliRunner().invoke(
        build(),
        f"profile {checkpoint} --tasks mini_gqa --limit 60 --batch-size 20 -o {file} --folder {asked.output}".split(),
    )
    assert told.exit_code == 0 and "review block: none found" in told.output, told.output


def test_every_checkpoint_has_a_folder_of_its_own(monkeypatch):
    folders = []
    monkeypatch.setattr("lmms_ca_plugin.studies.profile.profile", lambda asked, *_: folders.append(asked.output))
    for checkpoint in ("mini", "llava-hf/llava-1.5-7b-hf"):
        CliRunner().invoke(build(), ["profile", checkpoint])
    assert list(map(str, folders)) == ["studies/mini", "studies/llava-hf__llava-1.5-7b-hf"]


def test_too_few_documents_are_refused_before_weights_are_loaded(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.study.load", None)
    with pytest.raises(InputError, match="4 documents are asked; two halves of at least 20 pictures .*Take more"):
        profile(replace(asked, tasks=("mini_gqa",)), tmp_path / "p.json", ProfileRules())


def test_what_its_config_refuses_is_refused_before_weights_are_fetched(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.study.checkpoint_sha", None)
    (tmp_path / "config.json").write_text('{"model_type": "blip-2"}')
    for where, message in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path, "'blip-2' are not supported")):
        other = replace(asked, checkpoint=CheckpointOptions(str(where)))
        with pytest.raises(CheckpointError, match=message):
            profile(other, tmp_path / "p.json", ProfileRules())
