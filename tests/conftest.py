"""Small models and real pictures, shared by all tests. Models are built once; nothing may change them."""

from __future__ import annotations

from functools import cache

import pytest
import skimage.data
import torch
from PIL import Image
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import Family, Message, Question
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

FAMILIES = ("llava", "llava_next")
# Other sizes than the real ones, so that nothing can rest on 576 tokens or 32 blocks: 16 tokens a view, 6 blocks.
SMALL = {"num_blocks": 6, "hidden_size": 32, "image_size": 56, "dtype": torch.float64}


@pytest.fixture(scope="session", autouse=True)
def norms_keep_float64():
    """Lets float64 models be float64: transformers' RMSNorm rounds to float32, on both sides of every comparison."""

    def forward(self, states):
        precise = states.to(torch.promote_types(states.dtype, torch.float32))
        normed = precise * torch.rsqrt(precise.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * normed.to(states.dtype)

    patch = pytest.MonkeyPatch()
    patch.setattr(LlamaRMSNorm, "forward", forward)
    yield
    patch.undo()


@cache
def make_family(model_type: str, conversation: str = "vicuna_v1", aspect: str | None = None, **sizes) -> Family:
    settings = TinySettings(model_type, **{**SMALL, **sizes})
    return load_family(model_type)(build_model(settings), build_processor(settings), conversation, aspect)


@cache
def photo(name: str, width: int, height: int) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize((width, height))


def ask(doc_id: int, text: str, *pictures: Image.Image, task: str = "toy") -> Question:
    return Question(task, "val", doc_id, lambda: (Message("user", text, pictures),), len(text))


def mixed_questions() -> list[Question]:
    """Eight questions of different lengths on pictures of different shapes: other d in LLaVA-1.6, padding in both."""
    shapes = [("astronaut", 80, 80), ("coffee", 120, 60), ("cat", 60, 130), ("rocket", 112, 112)]
    texts = [
        "What color is the suit?",
        "What is in the cup on the table?\nAnswer the question using a single word or phrase.",
        "Which animal is it?",
        "Is the rocket standing on the ground?",
    ]
    return [ask(i, texts[i // 2] + " Why?" * (i % 2), photo(*shapes[i % 4])) for i in range(8)]


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return make_family(request.param)


@pytest.fixture(params=[("llava", 4), ("llava", 2), ("llava_next", 2)], ids=["llava", "llava-grouped", "next-grouped"])
def any_family(request) -> Family:
    """Both families, with and without grouped key-value heads."""
    return make_family(request.param[0], num_key_value_heads=request.param[1])
