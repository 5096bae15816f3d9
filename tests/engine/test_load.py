"""Opening checkpoints from folders: what works, and what is refused before or while the weights are read."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import mixed_questions

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, _device, describe, load
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.trace import Trace
from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.harness.study import Study
from lmms_ca_plugin.layer_profile import LayerProfile
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._variant import Variant


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def opened(folder, device="cpu", **options):
    return load(describe(CheckpointOptions(str(folder), device=device, **options)), InputOptions())


def test_a_folder_is_opened_and_answers(folder):
    engine = Engine.load(
        "vanilla", load_method("vanilla")(), CheckpointOptions(str(folder), device="cpu"), InputOptions(), RunOptions(2)
    )
    assert engine.family.model.dtype == torch.float32 and not engine.family.model.training
    answers = engine.answer([Request(q, Generation(max_new_tokens=4)) for q in mixed_questions()[:3]])
    assert len({a.text for a in answers}) > 1


def test_dtype_and_device_map_are_honoured(folder):
    assert opened(folder, dtype="float64").model.dtype == torch.float64
    assert opened(folder, device=None, device_map="cpu").model.device.type == "cpu"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(CheckpointError, match=f"pretrained={name}: there is no such folder"):
        describe(CheckpointOptions(name))


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="has no config.json, so it is no checkpoint"):
        describe(CheckpointOptions(str(tmp_path)))


def test_an_adapter_alone_is_told_to_be_merged(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint. It holds an adapter: merge that into its base"):
        describe(CheckpointOptions(str(tmp_path)))


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llava_mistral"])
def test_a_checkpoint_of_llavas_original_code_is_told_to_be_converted(tmp_path, model_type):
    config = {"model_type": model_type, "mm_vision_tower": "openai/clip-vit-large-patch14-336", "hidden_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"LLaVA's original code.*llava-hf/llava-1.5-7b-hf; .*convert_llava_weig"):
        describe(CheckpointOptions(str(tmp_path)))


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="pretrained=nobody/nothing: its config cannot be read"):
        describe(CheckpointOptions("nobody/nothing"))


def test_an_unsupported_type_is_named(copied):
    config = json.loads((copied / "config.json").read_text())
    for unknown in ("blip-2", "nobody_knows_it", None):
        (copied / "config.json").write_text(json.dumps({**config, "model_type": unknown}))
        with pytest.raises(CheckpointError, match=f"type '{unknown}' are not supported.*Supported: .*llava_next"):
            describe(CheckpointOptions(str(copied)))


def test_a_missing_weight_is_named_not_made_up(copied):
    file = copied / "model.safetensors"
    weights = load_file(file)
    (name,) = [n for n in weights if n.endswith("layers.2.self_attn.k_proj.weight")]
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing or of another shape.*layers.2.self_attn.k_proj"):
        opened(copied)


def test_missing_weights_are_named(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="its weights cannot be read"):
        opened(copied)


def test_a_processor_that_takes_no_pictures_is_named(copied):
    for file in ("processor_config.json", "preprocessor_config.json"):
        (copied / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="takes no pictures|its processor cannot be read"):
        opened(copied)


def test_a_processor_that_cannot_ask_is_refused_before_weights_are_read(copied):
    (copied / "model.safetensors").unlink()
    (copied / "chat_template.jinja").write_text("{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}")
    with pytest.raises(CheckpointError, match="conversation=processor: a question with one picture has 0 placeholders"):
        opened(copied)


def test_what_generate_would_do_to_scores_is_refused_before_weights_are_read(copied):
    file, weights = copied / "generation_config.json", copied / "model.safetensors"
    weights.rename(copied / "hidden")
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "temperature": 0.2, "do_sample": True, "encoder_repetition_penalty": 1.2}))
    with pytest.raises(CheckpointError, match=r"asks for encoder_repetition_penalty=1.2, which changes tokens' scores"):
        opened(copied)
    file.write_text(json.dumps({**plain, "min_new_tokens": 1}))  # 1 is no more neutral there than 0 is for a penalty
    with pytest.raises(CheckpointError, match=r"asks for min_new_tokens=1, which"):
        opened(copied)
    file.write_text(json.dumps({**plain, "repetition_penalty": 0.0}))
    with pytest.raises(CheckpointError, match=r"has repetition_penalty=0\.0\. Allowed: above 0"):
        opened(copied)
    (copied / "hidden").rename(weights)
    file.write_text(json.dumps({**plain, "temperature": 0.2, "do_sample": True, "repetition_penalty": 1.2}))
    assert opened(copied).repetition_penalty == 1.2  # but how tokens are drawn is the task's to say
    file.unlink()
    assert opened(copied).repetition_penalty == 1


def test_code_of_a_repository_runs_only_when_asked():
    assert CheckpointOptions().trust_remote_code is False


def test_the_default_device_is_this_processs_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _device(CheckpointOptions()) == torch.device("cuda:1")
    assert _device(CheckpointOptions(device_map="cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device(CheckpointOptions()) == torch.device("cpu")


def test_a_device_beside_a_device_map_is_refused(folder):
    with pytest.raises(OptionError, match="device=cpu and device_map=auto both say where the weights go. Give one."):
        describe(CheckpointOptions(str(folder), device="cpu", device_map="auto"))


@pytest.mark.parametrize(("computes_in", "refused"), [((), "bfloat16"), ((), "float16"), (("avx512_bf16",), "float16")])
def test_sixteen_bits_are_refused_on_a_cpu_that_does_not_compute_in_them(folder, computes_in, refused, monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in computes_in)
    with pytest.raises(OptionError, match=f"dtype={refused} on this CPU .*bfloat16 on a CPU with AVX512-BF16 or AMX"):
        describe(CheckpointOptions(str(folder), dtype=refused, device="cpu"))


@pytest.mark.parametrize("computes_in", ["avx512_bf16", "amx_tile"])
def test_bfloat16_is_honoured_on_a_cpu_that_computes_in_it(folder, computes_in, monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == computes_in)
    assert opened(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert opened(folder).model.dtype == torch.float32


def test_a_layer_profile_of_other_weights_is_refused_before_weights_are_read(folder, tmp_path, monkeypatch):
    """Alone and in a study; the digest alone tells weights of one kind and depth apart."""
    options, file = CheckpointOptions(str(folder), device="cpu"), tmp_path / "profile.json"
    method = load_method("contrastive")(profile=str(file))
    study = Study((), tmp_path, options, name="s", variants=(Variant("c", "contrastive", {"profile": str(file)}),))
    monkeypatch.setattr("lmms_ca_plugin.engine.engine.load", lambda *_: pytest.fail("weights were read"))
    profile = LayerProfile(describe(options).trunk.model_type, 4, (0,), 2, 3, checkpoint_sha="0" * 64)
    file.write_text(json.dumps(profile.to_json()))
    message = f"profile=.*json is of the weights 0{{12}}, but pretrained={folder} has {checkpoint_sha(options)[:12]}: "
    with pytest.raises(InputError, match=message + ".*`lmms-ca profile"):
        Engine.load("contrastive", method, options, InputOptions(), RunOptions())
    with pytest.raises(InputError, match=message):
        Runner(study)
    for sha in (checkpoint_sha(options), ""):  # its own, and of a profile that does not say
        file.write_text(json.dumps(replace(profile, checkpoint_sha=sha).to_json()))
        Runner(study)


def test_an_earlier_trace_is_not_overwritten(tmp_path):
    (tmp_path / "trace.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="holds an earlier run's records"):
        Trace(str(tmp_path / "trace.jsonl"))


def test_a_trace_on_a_full_disk_is_named():
    with pytest.raises(InputError, match="trace=/dev/full cannot be written: .*No space left"):
        Trace("/dev/full").write([{"answer": "yes"}])


def test_a_folder_is_no_trace(tmp_path):
    """The advice for a file is to remove it."""
    with pytest.raises(InputError, match=f"trace={tmp_path} is a folder. Name a file, like {tmp_path / 'trace.jsonl'}"):
        Trace(str(tmp_path))
    with pytest.raises(OptionError, match=r"trace= is not allowed. Allowed: a file, like trace.jsonl, or None"):
        RunOptions(trace="")
