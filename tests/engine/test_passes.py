"""The passes that a method's `prepare` may ask for, against eager attention and autograd through the whole model."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import naive
import pytest
import torch
import toys

from lmms_ca_plugin.engine import passes as module
from lmms_ca_plugin.engine.passes import MapPasses
from lmms_ca_plugin.families._contract import Message

QUESTIONS = [
    toys.ask(0, "What color is the suit?", toys.photo("astronaut", 80, 80)),
    toys.ask(1, "What is in the cup on the table? Answer with one word.", toys.photo("coffee", 120, 60)),
    toys.ask(2, "Which?", toys.photo("cat", 60, 130)),
]
GENERAL = [
    replace(q, conversation=lambda q=q: (Message("user", "Describe the picture.", q.read()[0].pictures),))
    for q in QUESTIONS
]
BLOCK = 3


def make_passes(family):
    return MapPasses(family, lambda inputs: None)


def seen(passes, *batches):
    """Batches on the same pictures, looked at once."""
    features = tuple(passes.look(passes.family.encode(batches[0])))
    return [replace(passes.family.encode(batch), features=features, pictures={}) for batch in batches]


@contextmanager
def eager_with_gradients(family):
    with naive.eager(family), torch.inference_mode(False), torch.enable_grad():
        yield


def forward(family, question, **more):
    given = naive.arguments(family, [question])
    standing = naive.positions(family, given)
    return given, family.model(**{**given, **more}, position_ids=standing, output_attentions=True)


def likeliest(out):
    return out.logits[0, -1].log_softmax(-1).max()


@contextmanager
def counted_blocks(family):
    """Counts the positions that pass each block."""
    counts = [0] * family.trunk.num_blocks

    def count(index):
        def hook(block, args, kwargs):
            states = args[0] if args else kwargs["hidden_states"]
            counts[index] += states.shape[0] * states.shape[1]

        return hook

    handles = [b.register_forward_pre_hook(count(i), with_kwargs=True) for i, b in enumerate(family.blocks)]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


# ---- attention -------------------------------------------------------------------------------------------------------
def test_attention_of_two_prompts_is_eager_attention(any_family):
    passes = make_passes(any_family)
    asked, general = seen(passes, QUESTIONS, GENERAL)
    for found, batch in zip(passes.attention([asked, general], BLOCK), (QUESTIONS, GENERAL), strict=True):
        assert found.dtype == torch.float64
        for row, question in zip(found, batch, strict=True):
            expected = naive.attention_of_last_token(any_family, [question])[BLOCK][0]
            torch.testing.assert_close(row[-len(expected) :], expected, atol=1e-9, rtol=0)
            assert (row[: -len(expected)] == 0).all()


@pytest.mark.parametrize("rows", [[0], [1], [2, 0]])
def test_a_batch_of_any_size_finds_the_same(family, rows):
    passes = make_passes(family)
    whole = passes.attention(seen(passes, QUESTIONS, GENERAL), BLOCK)
    part = passes.attention(seen(passes, [QUESTIONS[i] for i in rows], [GENERAL[i] for i in rows]), BLOCK)
    for mine, theirs in zip(part, whole, strict=True):
        for row, index in zip(mine, rows, strict=True):
            real = min(len(row), len(theirs[index]))
            torch.testing.assert_close(row[-real:], theirs[index][-real:], atol=1e-12, rtol=0)


def test_what_the_prompts_share_passes_once_and_no_later_block_at_all(family):
    passes = make_passes(family)
    asked, general = seen(passes, QUESTIONS[:1], GENERAL[:1])
    after = [
        len(i.input_ids[0]) - int((i.input_ids[0] == family.trunk.image_token_id).nonzero().max()) - 1
        for i in (asked, general)
    ]
    with counted_blocks(family) as counts:
        passes.attention([asked, general], BLOCK)
    shared = len(asked.input_ids[0]) - after[0]
    assert counts[: BLOCK + 1] == [shared + sum(after)] * (BLOCK + 1)
    assert counts[BLOCK + 1 :] == [0] * (family.trunk.num_blocks - BLOCK - 1)


@pytest.mark.parametrize(("shared", "passes_of"), [(True, 3), (False, 2)])
def test_the_maps_block_makes_keys_everywhere_and_the_rest_at_one_position(family, monkeypatch, shared, passes_of):
    if not shared:
        monkeypatch.setattr(module._Split, "same_start", lambda self, other: False)
    passes, block, positions = make_passes(family), family.blocks[BLOCK], Counter()
    batches = seen(passes, QUESTIONS[:1], GENERAL[:1])
    parts = {"queries": block.self_attn.q_proj, "keys": block.self_attn.k_proj, "mlp": block.mlp}
    handles = [
        part.register_forward_hook(lambda _module, _inputs, out, name=name: positions.update({name: out.shape[1]}))
        for name, part in parts.items()
    ]
    try:
        passes.attention(batches, BLOCK)
    finally:
        for handle in handles:
            handle.remove()
    assert (positions["queries"], positions["mlp"]) == (passes_of, passes_of) and positions["keys"] > 60


def test_sharing_changes_nothing(family, monkeypatch):
    passes = make_passes(family)
    batches = seen(passes, QUESTIONS, GENERAL)
    shared = passes.attention(batches, BLOCK)
    monkeypatch.setattr(module._Split, "same_start", lambda self, other: False)
    for mine, alone in zip(shared, passes.attention(batches, BLOCK), strict=True):
        torch.testing.assert_close(mine, alone, atol=1e-12, rtol=0)


def test_a_template_that_asks_before_it_shows_is_read_without_sharing(monkeypatch):
    family = toys.make_family("llava", "processor")
    template = (
        "{%- for turn in messages -%}USER: {% for part in turn['content'] if part['type'] == 'text' -%}"
        "{{ part['text'] }} {% endfor -%}{% for part in turn['content'] if part['type'] == 'image' -%}<image> "
        "{% endfor -%}{% endfor -%}ASSISTANT:"
    )
    monkeypatch.setattr(family.processor, "chat_template", template)
    passes = make_passes(family)
    asked, general = seen(passes, QUESTIONS, GENERAL)
    with counted_blocks(family) as counts:
        found = passes.attention([asked, general], BLOCK)
    assert counts[0] == asked.input_ids.numel() + general.input_ids.numel()
    for row, question in zip(found[0], QUESTIONS, strict=True):
        expected = naive.attention_of_last_token(family, [question])[BLOCK][0]
        torch.testing.assert_close(row[-len(expected) :], expected, atol=1e-9, rtol=0)


def test_starts_of_the_same_length_that_say_other_things_are_not_shared(family):
    def told(system):
        return [replace(q, conversation=lambda q=q: (Message("system", system), *q.read())) for q in QUESTIONS]

    passes = make_passes(family)
    batches = seen(passes, told("What"), told("Who"))
    assert batches[0].input_ids.shape == batches[1].input_ids.shape
    with counted_blocks(family) as counts:
        found = passes.attention(batches, BLOCK)
    assert counts[0] == 2 * batches[0].input_ids.numel()
    assert not torch.equal(*found)


# ---- gradients -------------------------------------------------------------------------------------------------------
def test_the_gradient_by_the_attention_is_autograds(any_family):
    passes = make_passes(any_family)
    (asked,) = seen(passes, QUESTIONS)
    weights, gradient = passes.attention_gradient(asked, BLOCK)
    assert gradient.abs().max() > 1e-6
    for row, slope, question in zip(weights, gradient, QUESTIONS, strict=True):
        with eager_with_gradients(any_family):
            _, out = forward(any_family, question)
            (expected,) = torch.autograd.grad(likeliest(out), out.attentions[BLOCK])
        real = expected.shape[-1]
        torch.testing.assert_close(row[:, -real:], out.attentions[BLOCK][0, :, -1].detach(), atol=1e-9, rtol=0)
        torch.testing.assert_close(slope[:, -real:], expected[0, :, -1], atol=1e-9, rtol=0)
        assert (row[:, :-real] == 0).all()


def test_only_the_last_token_has_a_graph(family):
    passes = make_passes(family)
    (asked,) = seen(passes, QUESTIONS[:1])
    with counted_blocks(family) as counts:
        passes.attention_gradient(asked, BLOCK)
    assert counts == [asked.input_ids.numel()] * family.trunk.num_blocks


def test_the_gradients_by_the_pixels_are_autograds(any_family):
    passes = make_passes(any_family)
    asked, general = any_family.encode(QUESTIONS), any_family.encode(GENERAL)
    gradients, features = passes.pixel_gradients(asked, [asked, general])
    for found, batch in zip(gradients, (QUESTIONS, GENERAL), strict=True):
        for row, question in zip(found, batch, strict=True):
            with eager_with_gradients(any_family):
                pixels = naive.arguments(any_family, [question])["pixel_values"].requires_grad_()
                _, out = forward(any_family, question, pixel_values=pixels)
                (expected,) = torch.autograd.grad(likeliest(out), pixels)
            if len(expected) == 1:  # of the one picture; Qwen's patches have no such axis
                expected = expected[0]
            # In a batch, the tiles or patches of smaller pictures are filled up.
            torch.testing.assert_close(row[: len(expected)], expected, atol=1e-9, rtol=1e-6)
    for mine, theirs in zip(features, passes.look(asked), strict=True):
        torch.testing.assert_close(mine.states, theirs.states)
        assert not mine.states.requires_grad


@pytest.mark.parametrize("number", [1, 2])
def test_the_vision_tower_runs_forward_once_however_many_prompts(family, number):
    passes = make_passes(family)
    asked = family.encode(QUESTIONS)
    runs = []
    handle = toys.tower(family).register_forward_hook(lambda *_: runs.append(1))
    try:
        passes.pixel_gradients(asked, [asked] * number)
    finally:
        handle.remove()
    assert len(runs) == 1


# ---- what is left behind ---------------------------------------------------------------------------------------------
def state(family):
    model = family.model
    return {
        "kernel": family.text_config._attn_implementation,
        "hooks": {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()},
        "thawed": [n for n, p in model.named_parameters() if p.requires_grad],
        "gradients": [n for n, p in model.named_parameters() if p.grad is not None],
    }


def calls(passes):
    asked = passes.family.encode(QUESTIONS)
    (with_features,) = seen(passes, QUESTIONS)
    return {
        "attention": lambda: passes.attention([with_features, with_features], BLOCK),
        "attention_gradient": lambda: passes.attention_gradient(with_features, BLOCK),
        "pixel_gradients": lambda: passes.pixel_gradients(asked, [asked]),
    }


@pytest.mark.parametrize("call", ["attention", "attention_gradient", "pixel_gradients"])
def test_nothing_is_left_behind(family, call):
    passes = make_passes(family)
    run, before = calls(passes)[call], state(family)
    weights = {n: p.clone() for n, p in family.model.named_parameters()}
    run()
    assert state(family) == before
    assert before["kernel"] == "sdpa" and before["thawed"] and not before["gradients"]
    assert all(torch.equal(p, weights[n]) for n, p in family.model.named_parameters())


@pytest.mark.parametrize("call", ["attention", "attention_gradient", "pixel_gradients"])
def test_nothing_is_left_behind_after_an_exception(family, call, monkeypatch):
    passes = make_passes(family)
    run, before = calls(passes)[call], state(family)

    def fail(states, *args, **kwargs):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(family.blocks[BLOCK].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        run()
    monkeypatch.undo()
    assert state(family) == before
    run()


def test_the_pictures_themselves_want_no_gradient():
    passes = make_passes(toys.make_family("llava", dtype=torch.float32))  # no copy is needed to bring them to its type
    asked = passes.family.encode(QUESTIONS)
    passes.pixel_gradients(asked, [asked])
    assert not asked.pictures["pixel_values"].requires_grad


def test_a_frozen_parameter_stays_frozen(family):
    passes = make_passes(family)
    parameter = next(family.model.parameters())
    parameter.requires_grad_(False)
    try:
        calls(passes)["pixel_gradients"]()
        assert not parameter.requires_grad
    finally:
        parameter.requires_grad_(True)
