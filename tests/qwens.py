"""Small Qwen2-VL and Qwen2.5-VL: the true architectures, narrow, on the small LLaVA's tokenizer and kind of weights."""

from __future__ import annotations

import transformers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from lmms_ca_plugin.tiny import TinySettings, build_tokenizer
from lmms_ca_plugin.tiny.tokenizer import IMAGE, special_tokens
from lmms_ca_plugin.tiny.weights import fill

CLASSES = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor),
}
PATCH, SIDE = 10, 60  # pixels; 16 image tokens for 80 x 80
VIDEO, START, END = "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
TURNS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{{ '<|vision_start|><image><|vision_end|>' if c['type'] == 'image' else c['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


def tokenizer_of(settings: TinySettings):
    tokenizer = build_tokenizer(settings.words)
    if transformers.__version__.startswith("4."):  # its processors take a tokenizer of Qwen2's class alone
        named = {**tokenizer.special_tokens_map, "extra_special_tokens": {"image_token": IMAGE}}
        tokenizer = transformers.Qwen2TokenizerFast(tokenizer_object=tokenizer._tokenizer, **named, padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": [VIDEO, START, END, *TURNS]})
    return tokenizer


def qwen_model(model_type: str, settings: TinySettings):
    """A model with the trunk's sizes of `settings`; its vision tower is as wide as the trunk."""
    tokenizer, width = tokenizer_of(settings), settings.hidden_size
    image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO, START, END])
    half = width // settings.num_heads // 2
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": round(settings.mlp_ratio * width),
        "num_hidden_layers": settings.num_blocks,
        "num_attention_heads": settings.num_heads,
        "num_key_value_heads": settings.num_key_value_heads,
        "max_position_embeddings": settings.max_position_embeddings,
        "rope_scaling": {"type": "mrope", "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]},
        **special_tokens(tokenizer),
    }
    shared = {"depth": settings.vision_blocks, "num_heads": settings.num_heads, "patch_size": settings.patch_size}
    vision = {
        "qwen2_vl": {**shared, "embed_dim": width, "hidden_size": width, "mlp_ratio": 2},
        "qwen2_5_vl": {
            **shared,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "out_hidden_size": width,
            "window_size": 4 * settings.patch_size,  # of 2 x 2 cells, so that small pictures have several
            "fullatt_block_indexes": [settings.vision_blocks - 1],
        },
    }[model_type]
    config_class, model_class, _ = CLASSES[model_type]
    config = config_class(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    model = model_class(config)
    fill(model, settings, tokenizer)
    model.generation_config = GenerationConfig(**special_tokens(tokenizer))
    return model.to(dtype=settings.dtype).eval()


def qwen_processor(model_type: str, settings: TinySettings):
    """Its processor, with the real ones' bounds of a picture's size."""
    tokenizer = tokenizer_of(settings)
    pictures = Qwen2VLImageProcessor(patch_size=settings.patch_size)
    return CLASSES[model_type][2](pictures, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)


def build(model_type: str, **sizes):
    """Model and processor; of the sizes, those of the vision side's views have no meaning here."""
    # The type is this file's; under this seed a sign that a test asks about differs among its questions.
    settings = TinySettings("llava", **{"seed": 2, **sizes, "image_size": SIDE, "patch_size": PATCH})
    return qwen_model(model_type, settings), qwen_processor(model_type, settings)
