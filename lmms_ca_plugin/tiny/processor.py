"""Processors with the settings of llava-hf/llava-1.5-7b-hf and llava-hf/llava-v1.6-vicuna-7b-hf.

Sources of the facts: the two checkpoints' published preprocessor and processor configurations (shortest edge, centre
crop, bicubic, OpenAI's CLIP mean and standard deviation; strategy "default", one extra token for CLIP's class token).
Both publish the same chat template; ours is written anew and renders the same text: pictures first, each followed by a
newline, then the text, no system sentence unless the conversation has one.
"""

from __future__ import annotations

from transformers import CLIPImageProcessor, LlavaNextImageProcessor, LlavaNextProcessor, LlavaProcessor
from transformers.processing_utils import ProcessorMixin

from lmms_ca_plugin.tiny.settings import TinySettings
from lmms_ca_plugin.tiny.tokenizer import IMAGE, build_tokenizer

CHAT_TEMPLATE = (
    "{%- for turn in messages -%}"
    "{%- if turn['role'] != 'system' -%}{{ turn['role'] | upper ~ ': ' }}{%- endif -%}"
    "{%- for part in turn['content'] if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}"
    "{%- for part in turn['content'] if part['type'] == 'text' -%}{{ part['text'] ~ ' ' }}{%- endfor -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)


def build_processor(settings: TinySettings) -> ProcessorMixin:
    """Builds the processor of a tiny model.

    Args:
        settings: Its sizes.

    Returns:
        A `LlavaProcessor` or `LlavaNextProcessor`.
    """
    side = settings.image_size
    pixels = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, "do_convert_rgb": True}
    shared = {
        "tokenizer": build_tokenizer(settings.words),
        "patch_size": settings.patch_size,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": IMAGE,
        "chat_template": CHAT_TEMPLATE,
    }
    if settings.model_type == "llava":
        return LlavaProcessor(image_processor=CLIPImageProcessor(**pixels), **shared)
    tiles = LlavaNextImageProcessor(image_grid_pinpoints=settings.pinpoints, **pixels)
    return LlavaNextProcessor(image_processor=tiles, **shared)
