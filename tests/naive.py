"""The naive way, in float64: eager attention, all weights, hooks. What the engine is checked against."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import torch


def eager64(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Eager attention in the tensors' own precision; transformers' own takes its softmax in float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, :, : key.shape[2]]
    weights = scores.softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


@contextmanager
def eager(family):
    """Has the trunk (not the vision tower) attend eagerly, in float64."""
    code = sys.modules[type(family.blocks[0]).__module__]
    theirs, code.eager_attention_forward = code.eager_attention_forward, eager64
    before = family.text_config._attn_implementation
    family.text_config._attn_implementation = "eager"
    try:
        with torch.inference_mode():
            yield
    finally:
        family.text_config._attn_implementation = before
        code.eager_attention_forward = theirs


def arguments(family, questions):
    """What the model's own forward and generate take: what the processor gives, in the model's type."""
    turns = [question.read() for question in questions]
    pictures = [family.prepare_picture(p) for asked in turns for turn in asked for p in turn.pictures]
    texts = [family.render(asked) for asked in turns]
    batch = family.processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")
    return {k: v.to(family.model.dtype) if v.is_floating_point() else v for k, v in batch.items()}


def positions(family, given):
    """Where `generate` has the prompt's tokens stand; a plain forward counts padding as well."""
    if "image_grid_thw" in given:
        names = ("input_ids", "attention_mask", "image_grid_thw", "mm_token_type_ids")
        return family.model.model.get_rope_index(**{name: given[name] for name in names if name in given})[0]
    return (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)


def base_view(family, pixel_values, given):
    """The view that shows the whole of one question's picture, (3, y, x), out of what the processor made of it."""
    if "image_grid_thw" not in given:
        return pixel_values[0] if pixel_values.ndim == 4 else pixel_values[0, 0]
    (_, rows, columns), patch = given["image_grid_thw"][0].tolist(), family.processor.image_processor.patch_size
    view, patches = torch.zeros(3, rows * patch, columns * patch, dtype=pixel_values.dtype), iter(pixel_values)
    for row in range(0, rows, 2):
        for column in range(0, columns, 2):
            for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four patches of a token come one after the other
                frames = next(patches).view(3, 2, patch, patch)
                top, left = (row + y) * patch, (column + x) * patch
                view[:, top : top + patch, left : left + patch] = frames.mean(1)
    return view


def attention_of_last_token(family, questions):
    """The last prompt token's weights of every block, mean over heads: (b, s) each."""
    with eager(family):
        given = arguments(family, questions)
        out = family.model(**given, position_ids=positions(family, given), output_attentions=True)
    return [weights[:, :, -1].mean(1) for weights in out.attentions]


def generate(family, questions, **settings):
    """What transformers' own generate answers: token ids without special tokens."""
    given = arguments(family, questions)
    with torch.inference_mode():
        ids = family.model.generate(**given, **{"do_sample": False, **settings})
    special = set(family.processor.tokenizer.all_special_ids)
    return [[t for t in row if t not in special] for row in ids[:, given["input_ids"].shape[1] :].tolist()]
