"""Small models, real pictures and questions, shared by all tests. Models are built once; nothing may change them."""

from __future__ import annotations

from functools import cache

import qwens
import skimage.data
import torch
from PIL import Image

from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import Family, InputOptions, Message, Question
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

# Other sizes than the real ones, so that nothing can rest on 576 tokens or 32 blocks: 16 tokens a view, 6 blocks.
SMALL = {"num_blocks": 6, "hidden_size": 32, "image_size": 56, "dtype": torch.float64}


@cache
def make_family(model_type: str, conversation: str | None = None, aspect: str | None = None, **sizes) -> Family:
    """A family of small weights; None asks as such a checkpoint was trained."""
    sizes, inputs = {**SMALL, **sizes}, InputOptions(conversation, aspect)
    if model_type in qwens.CLASSES:
        return load_family(model_type)(*qwens.build(model_type, **sizes), inputs)
    settings = TinySettings(model_type, **sizes)
    return load_family(model_type)(build_model(settings), build_processor(settings), inputs)


def tower(family: Family) -> torch.nn.Module:
    """What runs over pictures."""
    model = family.model.model
    return model.visual if hasattr(model, "visual") else model.vision_tower


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
