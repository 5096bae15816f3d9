"""`lmms-ca profile`: the study behind it, the file that contrastive takes, and the refusal to guess."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lmms_ca_plugin.checkpoints import bundled
from lmms_ca_plugin.cli import build
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.load import CheckpointOptions, describe
from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.harness.answering import Answering
from lmms_ca_plugin.harness.loaded import LoadedTasks, load_tasks
from lmms_ca_plugin.layer_profile import read_profile
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.results.profiles import ProfileRules, find_profile, sizes_of_halves
from lmms_ca_plugin.studies.profile import pictures_of, profile, study_of


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


def test_the_blocks_that_were_found_are_shaded_in_the_figure(asked, tmp_path, monkeypatch):
    cases = [{"fusion": (1, 2), "post": 4, "review": 5}, {"post": 3, "review": 4}, {"fusion": (2,)}, {}]
    left, shaded = iter(cases), []

    def found(*given):
        profile = find_profile(*given)
        return replace(profile, layers=replace(profile.layers, **next(left)))

    def drawn(*table, **said):
        shaded.append(said["blocks"])
        return curve(*table, **said)

    monkeypatch.setattr("lmms_ca_plugin.studies.profile.find_profile", found)
    monkeypatch.setattr("lmms_ca_plugin.studies.profile.curve", drawn)
    small = replace(asked, tasks=("mini_gqa",), limit=60, batch_size=20)
    for _ in cases:
        profile(small, tmp_path / "profile.json", ProfileRules())
    assert shaded == [
        {"fusion": [1, 2], "post": [4], "review": [5]},
        {"fusion": [], "post": [3], "review": [4]},
        {"fusion": [2], "post": [], "review": []},
        {"fusion": [], "post": [], "review": []},
    ]


def test_every_checkpoint_has_a_folder_of_its_own(monkeypatch):
    folders = []
    monkeypatch.setattr("lmms_ca_plugin.studies.profile.profile", lambda asked, *_: folders.append(asked.output))
    for checkpoint in ("mini", "llava-hf/llava-1.5-7b-hf"):
        CliRunner().invoke(build(), ["profile", checkpoint])
    assert list(map(str, folders)) == ["studies/mini", "studies/llava-hf__llava-1.5-7b-hf"]


@pytest.fixture
def no_weights(monkeypatch):
    """Reading weights fails."""
    for name in ("load", "checkpoint_sha"):
        monkeypatch.setattr(f"lmms_ca_plugin.harness.answering.{name}", None)


@pytest.mark.parametrize(("limit", "seed"), [(4, 0), (40, 1)])
def test_too_few_pictures_are_refused_before_weights_are_read(asked, tmp_path, no_weights, limit, seed):
    message = rf"{limit} documents show \d+ pictures in the half that finds and \d+ in the one .* 20 each .*Take more"
    with pytest.raises(InputError, match=message):
        profile(replace(asked, tasks=("mini_gqa",), limit=limit), tmp_path / "p.json", ProfileRules(seed=seed))


def test_a_task_that_names_no_pictures_is_refused_before_weights_are_read(asked, tmp_path, no_weights, monkeypatch):
    """As the harness's own: scored without a cluster, or with one of another kind, and so not even tried."""
    for change in ({"cluster_key": None}, {"cluster_key": "videoID"}, {"process_results": lambda *_: {"anls": 0.0}}):
        tasks = load_tasks(("mini_docvqa",), 60, 0)
        for key, value in change.items():
            tasks.tasks["mini_docvqa"].set_config(key=key, value=value)
        monkeypatch.setattr(Answering, "tasks", tasks)
        with pytest.raises(InputError, match="Task mini_docvqa does not say which picture .* Take .*: ca_gqa .* mini_"):
            profile(asked, tmp_path / "p.json", ProfileRules())


def test_a_picture_has_one_name_in_all_tasks_and_at_every_limit():
    tasks = load_tasks(("mini_vqav2", "mini_okvqa", "mini_gqa"), None, 0)
    pictures = pictures_of(tasks)
    scenes = {(n, i): doc["scene"] for n, task in tasks.tasks.items() for i, doc in enumerate(task.eval_docs)}
    assert scenes.keys() == pictures.keys()
    named = {(scenes[key], pictures[key]) for key in scenes}
    assert len(named) == len(dict(named)) == len(set(pictures.values())) < 373 + 373 + 300  # the sets share scenes
    some = pictures_of(load_tasks(("mini_gqa", "mini_okvqa", "mini_vqav2"), 50, 0))
    assert len(some) == 150 and some.items() <= pictures.items()
    asked = load_tasks(("mini_gqa",), 50, 0)
    before = pictures_of(asked)
    asked.instances()  # from here on a walk through the documents leaves out what is not asked
    assert pictures_of(asked) == before


def test_sets_that_name_a_picture_alike_share_it():
    """VQAv2 and OKVQA both go by COCO's ids."""
    vqav2, okvqa = (
        SimpleNamespace(
            eval_docs_no_media=[{"id": number} for number in numbers],
            get_config=lambda _: "cluster",
            process_results=lambda doc, _: {"vqa_accuracy": {"score": 0.0, "cluster": doc["id"]}},
        )
        for numbers in ((7, 8), (8, 9))
    )
    pictures = pictures_of(
        LoadedTasks(None, {"vqav2": vqav2, "okvqa": okvqa}, {"vqav2": None, "okvqa": frozenset({1})})
    )
    assert pictures == {("okvqa", 1): "okvqa/9", ("vqav2", 0): "vqav2/7", ("vqav2", 1): "okvqa/8"}


def test_the_bundled_profile_rests_on_these_halves():
    held = json.loads((bundled()["mini"] / "profile.json").read_text())["calibration"]
    sizes = sizes_of_halves([*pictures_of(load_tasks(("mini_gqa",), None, 0)).values()], held["seed"])
    assert [asdict(half) for half in sizes] == [held["finding"], held["confirming"]]


def test_what_its_config_refuses_is_refused_before_weights_are_fetched(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.checkpoint_sha", None)
    (tmp_path / "config.json").write_text('{"model_type": "blip-2"}')
    for where, message in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path, "'blip-2' are not supported")):
        other = replace(asked, checkpoint=CheckpointOptions(str(where)))
        with pytest.raises(CheckpointError, match=message):
            profile(other, tmp_path / "p.json", ProfileRules())
