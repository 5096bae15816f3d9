"""The true LLaVA architectures, narrow, with seeded random weights."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from lmms_ca_plugin.tiny.settings import TinySettings
from lmms_ca_plugin.tiny.tokenizer import IMAGE, build_tokenizer, special_tokens
from lmms_ca_plugin.tiny.weights import fill


def build_model(settings: TinySettings) -> PreTrainedModel:
    """Builds a tiny model in memory.

    Args:
        settings: Its sizes and seed.

    Returns:
        A `LlavaForConditionalGeneration` or `LlavaNextForConditionalGeneration` on the CPU, in evaluation mode.
    """
    model = untrained_model(settings)
    fill(model, settings, build_tokenizer(settings.words))
    return model.to(dtype=settings.dtype).eval()


def untrained_model(settings: TinySettings) -> PreTrainedModel:
    """Builds a tiny model as transformers initialises it, which is where training begins.

    Args:
        settings: Its sizes; the seed is torch's own.

    Returns:
        A float32 model on the CPU.
    """
    tokenizer = build_tokenizer(settings.words)
    special = special_tokens(tokenizer)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE)
    vision = CLIPVisionConfig(
        hidden_size=settings.vision_width,
        intermediate_size=round(settings.mlp_ratio * settings.vision_width),
        num_hidden_layers=settings.vision_blocks,
        num_attention_heads=settings.num_heads,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        projection_dim=settings.vision_width,
    )
    trunk = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=round(settings.mlp_ratio * settings.hidden_size),
        num_hidden_layers=settings.num_blocks,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_key_value_heads,
        max_position_embeddings=settings.max_position_embeddings,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        **special,
    )
    shared: dict[str, Any] = {
        "vision_config": vision,
        "text_config": trunk,
        "image_token_index": image_token,
        "image_seq_length": settings.view_tokens,
        "vision_feature_layer": settings.feature_layer,
        "vision_feature_select_strategy": "default",
    }
    model: PreTrainedModel
    if settings.model_type == "llava":
        model = LlavaForConditionalGeneration(LlavaConfig(**shared))
    else:
        config = LlavaNextConfig(image_grid_pinpoints=settings.pinpoints, **shared)
        model = LlavaNextForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    return model
