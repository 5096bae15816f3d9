"""layermask against hooks on transformers' own generate, and what it refuses."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from naive import eager, generate
from steps import answers, entering, plan_of, prompt_of, texts
from toys import ask, make_family, mixed_questions

from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import self_check
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families.llava import Llava
from lmms_ca_plugin.methods import load_method, method_entries
from lmms_ca_plugin.methods._contract import Plan

LAST = 5


@contextmanager
def naive_mask(family, blocks, mode):
    """Hooks on the blocks of the model itself: zeroes image states in the prefill, or cuts attention to them."""
    is_image = None

    def hook(module, args, kwargs):
        nonlocal is_image
        states = args[0] if args else kwargs["hidden_states"]
        if mode == "zero":
            states = states.masked_fill(is_image[..., None], 0) if states.shape[1] > 1 else states
            return (states, *args[1:]), {**kwargs, "hidden_states": states} if not args else kwargs
        mask = kwargs["attention_mask"].clone()  # (b, 1, q, k)
        keys = torch.nn.functional.pad(is_image, (0, mask.shape[3] - is_image.shape[1]))
        cut = keys[:, None, None].expand_as(mask)
        if states.shape[1] > 1:
            cut = cut & ~is_image[:, None, :, None]
        return args, {**kwargs, "attention_mask": mask.masked_fill(cut, torch.finfo(mask.dtype).min)}

    def note(module, args, kwargs):
        nonlocal is_image
        ids = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else args[0]
        if ids.shape[1] > 1:
            is_image = ids == family.trunk.image_token_id

    handles = [family.model.model.register_forward_pre_hook(note, with_kwargs=True)]
    handles += [family.blocks[block].register_forward_pre_hook(hook, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("mode", "layer", "blocks"),
    [
        ("zero", 0, [0]),
        ("zero", 3, [3]),
        ("zero", LAST, [LAST]),
        ("knockout", 2, [2]),
        ("knockout_from", 3, [3, 4, 5]),
        ("knockout_from", 0, range(6)),
    ],
)
def test_answers_are_those_of_the_naive_way(any_family, mode, layer, blocks):
    questions = mixed_questions()[:4]
    mine = texts(any_family, questions, "layermask", {"layer": layer, "mode": mode}, batch_size=4, max_new_tokens=8)
    with eager(any_family), naive_mask(any_family, blocks, mode):
        theirs = [ids for q in questions for ids in generate(any_family, [q], max_new_tokens=8)]
    assert mine == [any_family.processor.tokenizer.decode(ids).strip() for ids in theirs]


def test_zero_is_exactly_zero_at_image_tokens_and_nothing_elsewhere(any_family):
    prompt = prompt_of(any_family, mixed_questions()[:3])
    before = entering(any_family, Plan(), prompt, 4)
    after = entering(any_family, plan_of(any_family, "layermask", {"layer": 4}), prompt, 4)
    assert (after[prompt.is_image] == 0).all()
    assert (before[prompt.is_image] != 0).any(-1).all()
    assert torch.equal(after[~prompt.is_image], before[~prompt.is_image])


def test_newlines_of_tiles_are_image_tokens():
    family = make_family("llava_next")
    answer = answers(family, mixed_questions()[1:2], "layermask", {"layer": 2}, max_new_tokens=1)[0]
    prompt = prompt_of(family, mixed_questions()[1:2])
    assert (prompt.kinds == 3).any()
    assert answer.log == {"layer": 2, "masked_tokens": int(prompt.is_image.sum())}


def test_without_a_picture_there_is_nothing_to_mask(any_family):
    questions = [ask(0, "What is two plus two?"), ask(1, "Why?")]
    assert texts(any_family, questions, "layermask", {"layer": 1}, max_new_tokens=6) == texts(
        any_family, questions, "vanilla", max_new_tokens=6
    )


class Deepstack(Llava):
    """Adds something to every prompt state after blocks 1 and 3, as deepstack models do at image positions."""

    @classmethod
    def describe(cls, config):
        return replace(super().describe(config), added_after=(1, 3))

    def between(self, block, states):
        return states + 0.25 * block if block in (1, 3) and states.shape[1] > 1 else states


def test_what_is_added_between_blocks_is_left_out_from_the_masked_block_on():
    plain = make_family("llava")
    family = Deepstack(plain.model, plain.processor)
    plan = plan_of(family, "layermask", {"layer": 2})
    assert [(edit.block, edit.site) for edit in plan.edits] == [(2, "residual"), (3, "added")]
    self_check(family, plan)
    prompt = prompt_of(family, mixed_questions()[:2])
    assert (entering(family, plan, prompt, 2)[prompt.is_image] == 0).all()  # what block 1 added is gone as well
    states = [
        entering(f, p, prompt, 4) for f, p in ((family, plan), (plain, plan_of(plain, "layermask", {"layer": 2})))
    ]
    run = Run(family, Plan(edits=plan.edits[:1]), prompt, 1)
    with run.attached():
        step = run.begin()
        block3 = run.run_blocks(0, 3, prompt.states, step)
        raw = run._block(3, block3, step)
    assert torch.equal(states[0][prompt.is_image], raw[prompt.is_image])
    assert torch.equal(states[0][~prompt.is_image], raw[~prompt.is_image] + 0.75)
    assert not torch.allclose(states[0][~prompt.is_image], states[1][~prompt.is_image])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"give layer=n \(0 to 5\), or take the entry llava_layermask_L<n>\."),
        ({"layer": 6}, r"layer: the checkpoint has no block 6\. Allowed: 0 to 5"),
        ({"layer": "-1"}, r"layer: the checkpoint has no block -1\. Allowed: 0 to 5"),
        ({"layer": 1, "mode": "knokout"}, r"mode=knokout is not allowed\. Allowed: zero, knockout, knockout_from"),
        ({"layre": 1}, r"Did you mean 'layer'\?"),
    ],
)
def test_refusals(family, options, message):
    with pytest.raises(OptionError, match=message):
        load_method("layermask").from_options(options).plan(family.trunk)


def test_every_block_has_an_entry_and_listing_them_is_light():
    entries = {entry.name: entry for entry in method_entries()}
    assert {"vanilla", "contrastive", "layermask", "layermask_L0", "layermask_L95"} <= set(entries)
    assert "layermask_L96" not in entries
    assert (entries["layermask_L14"].method, entries["layermask_L14"].options) == ("layermask", {"layer": 14})
    light = "import sys, lmms_ca_plugin.methods as m; m.method_entries(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
