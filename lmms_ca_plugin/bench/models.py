"""What is measured on: the LLaVA-1.5 architecture with random weights, built in memory.

Costs depend on shapes and not on what the weights say, as far as a method does its full work. Whether it did is checked
on every side of a method that changes answers (`bench/targets.py`).
Source of the true shape: config.json of llava-hf/llava-1.5-7b-hf and of openai/clip-vit-large-patch14-336.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig

from lmms_ca_plugin.devices import device_named
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor, build_tokenizer
from lmms_ca_plugin.tiny.tokenizer import special_tokens


def build_family(device: str, seed: int) -> Family:
    """Builds the model that a device is measured with.

    Args:
        device: `cpu`: 32 blocks and 114 million parameters in float32. `cuda` or `cuda:<n>`: the 7B shape in bfloat16.
        seed: Seed of the weights.

    Raises:
        OptionError: Another device, or a GPU that is not there.
    """
    if device == "cpu":
        return small_family(TinySettings("llava", seed=seed, hidden_size=576, num_heads=9, num_key_value_heads=9))
    where = device_named(device)
    if where.type != "cuda":
        raise OptionError(f"device={device} is not supported. Allowed: cpu, cuda, cuda:<n>.")
    return load_family("llava")(true_shape(where, seed), build_processor(TinySettings("llava")))


def small_family(settings: TinySettings) -> Family:
    """Builds a small model with its processor."""
    return load_family(settings.model_type)(build_model(settings), build_processor(settings))


def true_shape(device: torch.device, seed: int) -> nn.Module:
    """Builds LLaVA-1.5-7B with random weights in bfloat16, on the device itself.

    Args:
        device: Where; `meta` gives the shapes alone.
        seed: Seed of the weights, which are transformers' own initialisation.

    Returns:
        A `LlavaForConditionalGeneration` in evaluation mode; its token ids are the small tokenizer's, and it chooses no
        other.
    """
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            vocab_size=32064,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(tokenizer.image_token),
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model: nn.Module = AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.generation_config = GenerationConfig(**special)
    # Tokens that the small tokenizer does not know have no text; answers of them would all be the same, blank.
    head: Any = model.lm_head
    head.weight.data[len(tokenizer) :] = 0
    return model.eval()


def held_bytes(family: Family) -> int:
    """Bytes of a model's weights and buffers."""
    model: nn.Module = family.model
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
