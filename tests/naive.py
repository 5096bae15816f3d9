"""The naive way, in float64: eager attention, all weights, hooks. What the engine is checked against."""

from __future__ import annotations

from contextlib import contextmanager

import torch
import transformers.models.llama.modeling_llama as llama


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
    theirs, llama.eager_attention_forward = llama.eager_attention_forward, eager64
    before = family.text_config._attn_implementation
    family.text_config._attn_implementation = "eager"
    try:
        with torch.inference_mode():
            yield
    finally:
        family.text_config._attn_implementation = before
        llama.eager_attention_forward = theirs


def arguments(family, questions):
    """What the model's own forward and generate take."""
    inputs = family.encode(questions)
    pictures = {k: v.to(family.model.dtype) if v.is_floating_point() else v for k, v in inputs.pictures.items()}
    return {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask.long(), **pictures}


def attention_of_last_token(family, questions):
    """The last prompt token's weights of every block, mean over heads: (b, s) each."""
    with eager(family):
        given = arguments(family, questions)
        # A plain forward counts padding as positions, and rotary angles are rounded to float32.
        positions = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        out = family.model(**given, position_ids=positions, output_attentions=True)
    return [weights[:, :, -1].mean(1) for weights in out.attentions]


def generate(family, questions, **settings):
    """What transformers' own generate answers: token ids without special tokens."""
    given = arguments(family, questions)
    with torch.inference_mode():
        ids = family.model.generate(**given, **{"do_sample": False, **settings})
    special = set(family.processor.tokenizer.all_special_ids)
    return [[t for t in row if t not in special] for row in ids[:, given["input_ids"].shape[1] :].tolist()]
