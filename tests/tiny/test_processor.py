import numpy as np
import pytest
import torch
from PIL import Image

from lmms_ca_plugin.tiny import MODEL_TYPES, TinySettings, build_processor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def turn(role, *texts, images=0):
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(
    ("turns", "rendered"),
    [
        ([turn("user", "What is it?", images=1)], "USER: <image>\nWhat is it? ASSISTANT:"),
        ([turn("user", "Which?", images=2)], "USER: <image>\n<image>\nWhich? ASSISTANT:"),
        ([turn("user", "A?\nIn one word.")], "USER: A?\nIn one word. ASSISTANT:"),
        ([turn("system", "Be brief."), turn("user", "A?", images=1)], "Be brief. USER: <image>\nA? ASSISTANT:"),
        ([turn("user", "A?"), turn("assistant", "b"), turn("user", "C?")], "USER: A? ASSISTANT: b USER: C? ASSISTANT:"),
        (
            [{"role": "user", "content": [*turn("user", "A?")["content"], {"type": "image"}]}],
            "USER: <image>\nA? ASSISTANT:",
        ),
    ],
)
def test_the_template_renders_what_the_published_one_renders(model_type, turns, rendered):
    processor = build_processor(TinySettings(model_type, image_size=28))
    assert processor.apply_chat_template(turns, add_generation_prompt=True) == rendered


def test_without_a_generation_prompt_the_template_ends_with_the_turn():
    processor = build_processor(TinySettings("llava", image_size=28))
    assert processor.apply_chat_template([turn("user", "A?")], add_generation_prompt=False) == "USER: A? "


@pytest.mark.parametrize("image_size", [28, 56])
def test_llava_puts_one_token_per_patch(image_size):
    settings = TinySettings("llava", image_size=image_size)
    processor = build_processor(settings)
    batch = processor(images=Image.new("RGB", (90, 60)), text="USER: <image>\nA? ASSISTANT:", return_tensors="pt")
    assert (batch.input_ids == processor.tokenizer.image_token_id).sum() == settings.view_tokens
    assert batch.pixel_values.shape == (1, 3, image_size, image_size)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values"}


def test_pixels_are_normalised_with_clips_numbers_and_cropped_at_the_centre():
    pixels = np.zeros((28, 84, 3), np.uint8)
    pixels[:, 28:56] = (255, 128, 0)  # only the middle third is seen
    processor = build_processor(TinySettings("llava", image_size=28))
    seen = processor.image_processor(Image.fromarray(pixels), return_tensors="pt").pixel_values[0]
    expected = [(value / 255 - m) / s for value, m, s in zip((255, 128, 0), CLIP_MEAN, CLIP_STD, strict=True)]
    torch.testing.assert_close(seen, torch.tensor(expected)[:, None, None].expand_as(seen), atol=1e-5, rtol=0)


def test_llava_next_adds_tiles_and_newlines():
    processor = build_processor(TinySettings("llava_next", image_size=28))
    batch = processor(images=Image.new("RGB", (60, 60)), text="USER: <image>\nA? ASSISTANT:", return_tensors="pt")
    # 2x2 tiles of 2x2 tokens make 4 rows of 4, each with a newline, and the base view has 4 more.
    assert (batch.input_ids == processor.tokenizer.image_token_id).sum() == 4 * (4 + 1) + 4
    assert batch.pixel_values.shape == (1, 5, 3, 28, 28)
