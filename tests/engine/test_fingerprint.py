"""A checkpoint's digest: the same for the same weights, another one for others."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lmms_ca_plugin.engine.fingerprint import SAMPLE, checkpoint_sha
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import CheckpointError

RNG = np.random.default_rng(5)
# One that is sampled, one that fits a sample, one that is empty.
WEIGHTS = {
    "a.large": RNG.normal(size=(64, 2000)).astype(np.float32),
    "b.small": RNG.normal(size=30).astype(np.float16),
    "c.empty": np.zeros((0, 3), dtype=np.float32),
}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "one", WEIGHTS)


def write(folder, weights, config='{"model_type": "llava"}'):
    folder.mkdir()
    (folder / "config.json").write_text(config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def sha(folder):
    return checkpoint_sha(CheckpointOptions(str(folder)))


def changed(name, index, by=1.0):
    weights = {key: value.copy() for key, value in WEIGHTS.items()}
    weights[name].reshape(-1)[index] += by
    return weights


def test_place_files_and_shards_do_not_matter(folder, tmp_path):
    assert re.fullmatch("[0-9a-f]{64}", sha(folder))
    copied = shutil.copytree(folder, tmp_path / "two")
    (copied / "README.md").write_text("more")
    assert sha(copied) == sha(folder)
    (copied / "model.safetensors").unlink()
    names = {"c.empty": "1.safetensors", "a.large": "1.safetensors", "b.small": "2.safetensors"}
    for file in set(names.values()):
        save_file({name: WEIGHTS[name] for name, where in names.items() if where == file}, copied / file)
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert sha(copied) == sha(folder)


@pytest.mark.parametrize(
    "weights",
    [
        {name: value + np.float32(1e-3) for name, value in WEIGHTS.items()},
        changed("a.large", 0),
        changed("a.large", 64_000),
        changed("a.large", -1),
        changed("b.small", 12),
        {**WEIGHTS, "a.large": WEIGHTS["a.large"].reshape(2000, 64)},
        {**WEIGHTS, "a.large": WEIGHTS["a.large"].view(np.int32)},
        {("d.small" if name == "b.small" else name): value for name, value in WEIGHTS.items()},
        {**WEIGHTS, "d.more": np.zeros(1, dtype=np.float32)},
    ],
    ids=["trained", "first", "middle", "last", "small", "shape", "type", "name", "more"],
)
def test_other_weights_have_another(folder, tmp_path, weights):
    assert sha(write(tmp_path / "other", weights)) != sha(folder)


def test_a_digest_that_was_written_into_a_profile_still_holds(tmp_path):
    """Profiles and runs keep it: a change of the rule would take every one of them for one of other weights."""
    weights = {"a.large": np.arange(9000, dtype=np.float32), "b.small": np.ones((2, 3), dtype=np.float16)}
    assert sha(write(tmp_path / "one", weights)).startswith("d28e1da95fccb27c")


def test_another_config_has_another(folder, tmp_path):
    assert sha(write(tmp_path / "other", WEIGHTS, '{"model_type": "llava_next"}')) != sha(folder)


def test_what_it_does_not_see_is_an_edit_between_the_samples(folder, tmp_path):
    assert sha(write(tmp_path / "other", changed("a.large", 2 * SAMPLE // 4))) == sha(folder)
    assert load_file(tmp_path / "other" / "model.safetensors")["a.large"].sum() != WEIGHTS["a.large"].sum()


# ---- PyTorch's own files ---------------------------------------------------------------------------------------------
def write_archives(folder, *shards):
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    names = {}
    for number, weights in enumerate(shards):
        file = "pytorch_model.bin" if len(shards) == 1 else f"pytorch_model-{number}.bin"
        torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, folder / file)
        names |= dict.fromkeys(weights, file)
    if len(shards) > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def test_pytorchs_files_are_told_apart_wherever_an_edit_lies(tmp_path):
    one, same = (sha(write_archives(tmp_path / name, WEIGHTS)) for name in ("one", "same"))
    edited = sha(write_archives(tmp_path / "edited", changed("a.large", 2 * SAMPLE // 4)))
    assert one == same != edited
    shards = {"b.small": WEIGHTS["b.small"]}, {"a.large": WEIGHTS["a.large"], "c.empty": WEIGHTS["c.empty"]}
    split = sha(write_archives(tmp_path / "split", *shards))
    shards[0]["b.small"] = changed("b.small", 12)["b.small"]
    assert len({one, split, sha(write_archives(tmp_path / "split-edited", *shards))}) == 3


def test_safetensors_files_go_first(folder, tmp_path):
    """As when the checkpoint is loaded."""
    before = sha(folder)
    shutil.copy(write_archives(tmp_path / "old", WEIGHTS) / "pytorch_model.bin", folder)
    assert sha(folder) == before


def test_pytorchs_oldest_files_are_refused(tmp_path):
    folder = write_archives(tmp_path / "oldest", WEIGHTS)
    torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="pytorch_model.bin is no archive of PyTorch 1.6 or later.*save it again"):
        sha(folder)


# ---- what is missing -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_what_is_missing_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"pretrained=.*one: {file} is not to be had.*`save_pretrained` writes"):
        sha(folder)


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="pretrained=nobody/nothing: config.json is not to be had"):
        sha("nobody/nothing")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"pretrained=.*nowhere: config.json cannot be read: .*\nGive a local"):
        sha(tmp_path / "nowhere")
