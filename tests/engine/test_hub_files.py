"""Checkpoints as the hub has them: files, fields and names of weights of the releases that LLaVA was published with.

Source of the facts: llava-hf/llava-1.5-7b-hf and llava-hf/llava-v1.6-vicuna-7b-hf, as transformers 4.36 wrote them:
float16 in several files with an index, CLIP's tower under `vision_model`, buffers beside the weights, `torch_dtype` in
place of `dtype`, the pictures' settings in a file of their own, and the chat template in JSON.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import mixed_questions

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.methods import load_method


@pytest.fixture
def published(folder, tmp_path):
    """The same checkpoint as the hub would have it."""
    there = shutil.copytree(folder, tmp_path / "published")
    config, processor = read(there / "config.json"), read(there / "processor_config.json")
    text = config["text_config"]
    text["rope_theta"] = text.pop("rope_parameters", text)["rope_theta"]
    for part in (config, text):
        part.pop("dtype", None)
        part |= {"torch_dtype": "float16", "vocab_size": text["vocab_size"]}
    write(there / "config.json", {**config, "pad_token_id": text["pad_token_id"], "transformers_version": "4.36.0"})
    pictures = processor.pop("image_processor", None) or read(there / "preprocessor_config.json")
    write(there / "preprocessor_config.json", {**pictures, "processor_class": processor["processor_class"]})
    for size in ("num_additional_image_tokens", "patch_size"):
        del processor[size]
    write(there / "processor_config.json", processor)
    template = there / "chat_template.jinja"
    write(there / "chat_template.json", {"chat_template": template.read_text()})
    template.unlink()
    weights = {published_name(name): held.half() for name, held in load_file(there / "model.safetensors").items()}
    (there / "model.safetensors").unlink()
    weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    weights |= {f"language_model.model.layers.{b}.self_attn.rotary_emb.inv_freq": torch.ones(4) for b in range(4)}
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        save_file({name: weights[name] for name in files if files[name] == file}, there / file, {"format": "pt"})
    write(there / "model.safetensors.index.json", {"metadata": {}, "weight_map": files})
    return there


def read(file):
    return json.loads(file.read_text())


def write(file, content):
    file.write_text(json.dumps(content))


def published_name(name):
    old = name.removeprefix("model.")
    if old.startswith("lm_head"):
        return f"language_model.{old}"
    if old.startswith("language_model.") and not old.startswith(("language_model.model.", "language_model.lm_head")):
        return old.replace("language_model.", "language_model.model.", 1)
    if old.startswith("vision_tower.") and not old.startswith("vision_tower.vision_model."):
        return old.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return old


def opened(folder):
    options = CheckpointOptions(str(folder), device="cpu")
    method = load_method("layermask").from_options({"layer": 2})
    return Engine.load("layermask", method, options, InputOptions(), RunOptions(4))


def test_they_are_the_checkpoint_that_was_saved_since(folder, published):
    names = read(published / "model.safetensors.index.json")["weight_map"]
    parts = {name.partition(".")[0] for name in names}
    assert parts - {"image_newline"} == {"language_model", "vision_tower", "multi_modal_projector"}
    now, then = opened(folder), opened(published)
    rounded = {name: held.half().float() for name, held in now.family.model.state_dict().items()}
    now.family.model.load_state_dict(rounded)
    weights = then.family.model.state_dict()
    assert weights.keys() == rounded.keys()
    assert all(torch.equal(held, weights[name]) for name, held in rounded.items())
    requests = [Request(question, Generation(max_new_tokens=4)) for question in mixed_questions()]
    answers = then.answer(requests)
    assert answers == now.answer(requests) and len({answer.text for answer in answers}) > 1
