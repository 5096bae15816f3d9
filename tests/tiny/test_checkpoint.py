from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor, write_checkpoint

CLASSES = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
PROMPT = "USER: <image>\nWhat is it? ASSISTANT:"


def small(model_type, **sizes):
    return TinySettings(model_type, **{"num_blocks": 4, "hidden_size": 32, "image_size": 28, **sizes})


def inputs(processor, color="red"):
    return processor(images=Image.new("RGB", (40, 30), color), text=PROMPT, return_tensors="pt")


@pytest.mark.parametrize("model_type", CLASSES)
def test_a_written_checkpoint_is_the_model_in_memory(tmp_path, model_type):
    settings = small(model_type, num_key_value_heads=2)
    folder = write_checkpoint(tmp_path / "new" / "folder", settings)
    loaded, processor = CLASSES[model_type].from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    here, batch = build_model(settings), inputs(build_processor(settings))
    read = inputs(processor)
    assert {*read} == {*batch}
    for name, value in read.items():  # transformers 5.0 reads one that rounds in another order
        torch.testing.assert_close(value, batch[name])
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, here(**batch).logits)
    assert loaded.config.text_config.num_key_value_heads == 2
    assert loaded.generation_config.eos_token_id == processor.tokenizer.eos_token_id


@pytest.mark.parametrize("model_type", CLASSES)
def test_the_same_settings_give_the_same_bytes(tmp_path, model_type):
    first, second = (write_checkpoint(tmp_path / name, small(model_type)) for name in "ab")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_another_seed_gives_other_weights():
    models = [build_model(small("llava", seed=seed)) for seed in (0, 1)]
    same = [torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True) if a.std() > 0]
    assert not any(same)


def test_more_blocks_leave_the_lower_blocks_weights_alone():
    few, many = (build_model(small("llava", num_blocks=n)).state_dict() for n in (2, 3))
    assert set(few) < set(many)
    assert all(torch.equal(tensor, many[name]) for name, tensor in few.items())


def test_the_configuration_is_llavas(tmp_path):
    config = AutoConfig.from_pretrained(write_checkpoint(tmp_path, small("llava")))
    assert (config.model_type, config.text_config.model_type) == ("llava", "llama")
    assert config.vision_config.model_type == "clip_vision_model"
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-2, "default")
    assert config.text_config.max_position_embeddings == 4096


def test_dtype_is_stored(tmp_path):
    folder = write_checkpoint(tmp_path, replace(small("llava"), dtype=torch.float64))
    assert LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto").dtype == torch.float64


def answers(settings, prompts=8):
    model, processor = build_model(settings), build_processor(settings)
    for number in range(prompts):
        batch = inputs(processor, (number * 30, 255 - number * 30, 128))
        yield model.generate(**batch, max_new_tokens=16, do_sample=False)[0, batch.input_ids.shape[1] :].tolist()


def test_answers_are_text_or_the_end_token():
    image_token = build_processor(small("llava")).tokenizer.image_token_id
    for answer in answers(small("llava")):
        assert all(token == 2 or 258 < token < image_token for token in answer)


def test_eos_gain_decides_whether_answers_end():
    assert {len(answer) for answer in answers(small("llava", eos_gain=0.0))} == {16}
    assert min(len(answer) for answer in answers(small("llava", eos_gain=8.0))) < 16
