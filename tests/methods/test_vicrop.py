"""ViCrop: its maps against a naive rewrite, its answering pass, its records, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import naive
import numpy as np
import pytest
import qwens
import torch
import toys
from PIL import Image
from torchvision.transforms import functional as pixels
from trunks import PAPER

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.passes import MapPasses
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.trace import Trace
from lmms_ca_plugin.errors import GenerationError, InputError, OptionError
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._cells import cells_of, whole
from lmms_ca_plugin.families._contract import InputOptions, Message, Question
from lmms_ca_plugin.methods import _maps, load_method, vicrop
from lmms_ca_plugin.methods._box import find_box

ViCrop = load_method("vicrop")
MAPS = {"rel_att": {"layer": 3}, "grad_att": {"layer": 3, "map": "grad_att"}, "pure_grad": {"map": "pure_grad"}}
VIEW = 56  # pixels, in 4 x 4 cells: LLaVA's


def mixed() -> list[Question]:
    shapes = [("astronaut", 300, 300), ("coffee", 320, 200), ("cat", 150, 400), ("rocket", 600, 90)]
    texts = [
        "What color is the suit?",
        "What is in the cup?\nAnswer with a single word.",
        "Which animal is it?",
        "Is it?",
    ]
    questions = [toys.ask(i, texts[i // 2] + " Why?" * (i % 2), toys.photo(*shapes[i % 4])) for i in range(7)]
    return [*questions, toys.ask(7, "What do you see?")]


QUESTIONS = mixed()


def make_passes(family):
    return MapPasses(family, lambda inputs: None)


def prepare(family, questions, **options):
    return ViCrop.from_options(options).prepare(questions, make_passes(family))


def answers(family, questions, options, batch_size=8, trace=None, **settings):
    engine = Engine(family, ViCrop.from_options(options), RunOptions(batch_size=batch_size), "vicrop", trace)
    return engine.answer([Request(q, Generation(**{"max_new_tokens": 6, **settings})) for q in questions])


def vanilla(family, questions, **settings):
    engine = Engine(family, load_method("vanilla")(), RunOptions(batch_size=1))
    return engine.answer([Request(q, Generation(**{"max_new_tokens": 6, **settings})) for q in questions])


def picture_of(question):
    return question.read()[-1].pictures[0]


# ---- maps against the naive way --------------------------------------------------------------------------------------
def general(question: Question) -> Question:
    (message,) = question.read()
    text = "Write a general description of the image."
    return replace(question, conversation=lambda: (Message("user", text, message.pictures),))


def naive_attention(family, question):
    weights = naive.attention_of_last_token(family, [question])[3][0]
    share = weights[family.encode([question]).input_ids[0] == family.trunk.image_token_id]
    return on_base_view(family, question, share / share.sum())


def on_base_view(family, question, values):
    rows, columns = family.cells(picture_of(question).size).grid
    return values[: rows * columns].view(rows, columns)  # the base view comes first


def naive_gradients(family, question, by):
    with naive.eager(family), torch.inference_mode(False), torch.enable_grad():
        given = naive.arguments(family, [question])
        given["pixel_values"].requires_grad_()
        out = family.model(**given, position_ids=naive.positions(family, given), output_attentions=True)
        likeliest = out.logits[0, -1].log_softmax(-1).max()
        if by == "pixels":
            (gradient,) = torch.autograd.grad(likeliest, given["pixel_values"])
            return naive.base_view(family, gradient, given).norm(dim=0)
        attention = out.attentions[3]
        product = (attention * torch.autograd.grad(likeliest, attention)[0].relu()).mean(1)[0, -1]
        image = given["input_ids"][0] == family.trunk.image_token_id
        return on_base_view(family, question, product[image].detach())


def naive_detail(view):
    """The high-pass filter of a (3, y, x) picture, with torchvision's blur and a median taken window by window."""
    norm = (view - pixels.gaussian_blur(view, [3, 3])).norm(dim=0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(norm, 3, mode="symmetric"), (7, 7))
    filtered = np.median(windows, axis=(2, 3))
    return torch.from_numpy(filtered > np.median(filtered))


def naive_map(family, question, name):
    if name == "rel_att":
        return naive_attention(family, question) / (naive_attention(family, general(question)) + 1e-12)
    if name == "grad_att":
        return naive_gradients(family, question, "attention")
    ratio = naive_gradients(family, question, "pixels") / (naive_gradients(family, general(question), "pixels") + 1e-12)
    given = naive.arguments(family, [question])
    view = naive.base_view(family, given["pixel_values"], given)
    mean, std = (
        torch.tensor(getattr(family.processor.image_processor, n), dtype=torch.float64)[:, None, None]
        for n in ("image_mean", "image_std")
    )
    width, height = picture_of(question).size
    shown = torch.zeros(view.shape[1:], dtype=torch.bool)
    y, x = slice(None), slice(None)
    if family.inputs.image_aspect_ratio == "pad":  # nothing of the border may count
        side = max(width, height)
        top, left = (side - height) // 2, (side - width) // 2
        y = slice(round(VIEW * top / side), round(VIEW * (top + height) / side))
        x = slice(round(VIEW * left / side), round(VIEW * (left + width) / side))
    shown[y, x] = naive_detail((view * std + mean)[:, y, x])
    rows, columns = family.cells((width, height)).grid
    return (ratio * shown).view(rows, len(view[0]) // rows, columns, -1).mean((1, 3))


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_the_naive_map(any_family, name):
    questions = QUESTIONS[:4]
    method = ViCrop.from_options(MAPS[name])
    found = method._find(questions, any_family.encode(questions), make_passes(any_family))
    for mine, question in zip(found.values, questions, strict=True):
        theirs = naive_map(any_family, question, name)
        assert theirs.std() > 1e-3 * theirs.mean() > 0, "a flat map proves nothing"
        torch.testing.assert_close(mine.double(), theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_the_box_is_found_in_the_map_on_the_pixels_the_tower_saw(any_family, name):
    questions = QUESTIONS[:4]
    prepared = prepare(any_family, questions, **MAPS[name])
    for record, question in zip(prepared.log, questions, strict=True):
        size = picture_of(question).size
        box = find_box(naive_map(any_family, question, name), any_family.cells(size), any_family.view_side)
        assert (record["box"], record["window_ratio"]) == (list(box.corners), box.ratio)
        assert record["sharpness"] == pytest.approx(box.sharpness, rel=1e-6)
        assert record["picture"] == list(size)
        assert record["map_layer"] == (None if name == "pure_grad" else 3)


def test_whole_lays_the_map_over_the_whole_picture():
    family, questions = toys.make_family("llava"), QUESTIONS[1:4]
    prepared = prepare(family, questions, layer=3, align="whole")
    seen = prepare(family, questions, layer=3)
    for record, question in zip(prepared.log, questions, strict=True):
        size = picture_of(question).size
        box = find_box(naive_map(family, question, "rel_att"), cells_of(size, whole(size), (4, 4)), VIEW)
        assert record["box"] == list(box.corners)
    assert prepared.log != seen.log


@pytest.mark.parametrize("name", MAPS)
def test_llava_nexts_base_view_is_the_whole_picture(name):
    family = toys.make_family("llava_next")
    assert (
        prepare(family, QUESTIONS[:4], **MAPS[name], align="whole").log
        == prepare(family, QUESTIONS[:4], **MAPS[name]).log
    )


def test_the_filter_of_a_map_over_the_whole_picture_looks_at_the_whole_picture(monkeypatch):
    family, question = toys.make_family("llava"), QUESTIONS[1]
    given = []
    monkeypatch.setattr(_maps, "high_pass", lambda view: given.append(view) or np.zeros(view.shape[1:]))
    prepare(family, [question], map="pure_grad", align="whole")
    squashed = picture_of(question).resize((VIEW, VIEW), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(given[0], pixels.to_tensor(squashed).double().numpy(), atol=1e-6)


# ---- high resolution -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MAPS)
def test_a_small_picture_has_one_tile(family, name):
    assert (
        prepare(family, QUESTIONS[:3], **MAPS[name], high_res=True).log
        == prepare(family, QUESTIONS[:3], **MAPS[name]).log
    )


def tile_questions(question):
    width, height = picture_of(question).size
    crops = [picture_of(question).crop((x, 0, x + width // 2, height)) for x in (0, width // 2)]
    (message,) = question.read()
    return [replace(question, conversation=lambda c=c: (replace(message, pictures=(c,)),)) for c in crops]


@pytest.mark.parametrize("name", MAPS)
def test_a_large_picture_has_a_map_per_tile(name):
    family = toys.make_family("llava_next")  # squashed tiles are laid side by side
    large = toys.ask(0, "What color is the suit?", toys.photo("astronaut", 1600, 1000))
    expected = torch.cat([naive_map(family, tile, name) for tile in tile_questions(large)], 1)
    cells = cells_of((1600, 1000), whole((1600, 1000)), (4, 8))
    (record, _) = prepare(family, [large, QUESTIONS[1]], **MAPS[name], high_res=True).log
    assert record["box"] == list(find_box(expected, cells, VIEW).corners)


def test_the_tower_sees_every_picture_crop_and_tile_once():
    family = toys.make_family("llava")
    large = toys.ask(0, "What is it?", toys.photo("astronaut", 1600, 1000))
    seen = []
    handle = family.model.model.vision_tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        for questions, options, number in [
            ([QUESTIONS[0], QUESTIONS[1]], {}, 4),  # two pictures, two crops
            ([QUESTIONS[0], large], {"high_res": True}, 6),  # and two tiles
            ([QUESTIONS[0]], {"map": "pure_grad"}, 2),
            ([QUESTIONS[0]], {"map": "grad_att"}, 2),
        ]:
            seen.clear()
            prepared = prepare(
                family, questions, **({"layer": 3} if "pure_grad" not in options.values() else {}), **options
            )
            family.embed(prepared.inputs)
            assert sum(seen) == number
    finally:
        handle.remove()


# ---- the answering pass ----------------------------------------------------------------------------------------------
def naive_second_pass(family, question, box, **settings):
    """What transformers' own generate answers, for LLaVA from embeddings put together by hand."""
    (message,) = question.read()
    picture = message.pictures[0]
    decode = family.processor.tokenizer.decode
    if family.trunk.model_type.startswith("qwen"):  # a crop is a second picture like any other
        pair = replace(message, pictures=(picture, picture.crop(box)))
        both = replace(question, conversation=lambda: (pair,))
        return decode(naive.generate(family, [both], max_new_tokens=6, **settings)[0]).strip()
    crop = replace(question, conversation=lambda: (Message("user", "?", (picture.crop(box),)),))
    pair = (Message("user", message.text, (picture, picture)),)
    features = []
    with torch.inference_mode():
        for shown in (question, crop):
            given = naive.arguments(family, [shown])
            out = family.model.get_image_features(
                **{k: v for k, v in given.items() if k in ("pixel_values", "image_sizes")}
            )
            features.append(next(iter(getattr(out, "pooler_output", out))))
        if family.trunk.model_type == "llava_next":
            newline = family.model.model.image_newline[None]
            features[1] = torch.cat([features[1][:16], newline])
        before, between, after = family.render(pair).split("<image>")
        text = before + "<image>" * len(features[0]) + between + "<image>" * len(features[1]) + after
        ids = family.processor.tokenizer(text, return_tensors="pt")["input_ids"]
        states = family.model.get_input_embeddings()(ids)
        states[ids == family.trunk.image_token_id] = torch.cat(features)
        generated = family.model.generate(
            inputs_embeds=states, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, **settings
        )
    special = set(family.processor.tokenizer.all_special_ids)
    return decode([t for t in generated[0].tolist() if t not in special]).strip()


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
def test_answers_are_those_of_generate_with_the_crop_beside_the_picture(any_family, settings):
    questions = QUESTIONS[:4]
    mine = answers(any_family, questions, MAPS["rel_att"], **settings)
    theirs = [naive_second_pass(any_family, q, a.log["box"], **settings) for q, a in zip(questions, mine, strict=True)]
    assert [a.text for a in mine] == theirs
    assert theirs != [a.text for a in vanilla(any_family, questions, **settings)]


def test_sampling_is_that_of_a_question_with_both_pictures():
    family, hot = toys.make_family("llava"), {"temperature": 1.5}
    mine = answers(family, QUESTIONS[:4], MAPS["rel_att"], **hot)
    both = [
        replace(
            q,
            conversation=lambda q=q, a=a: (
                replace(q.read()[0], pictures=(picture_of(q), picture_of(q).crop(a.log["box"]))),
            ),
        )
        for q, a in zip(QUESTIONS[:4], mine, strict=True)
    ]
    assert [a.text for a in mine] == [a.text for a in vanilla(family, both, **hot)]


@pytest.mark.parametrize("options", [*MAPS.values(), {"layer": 3, "high_res": True}], ids=[*MAPS, "high_res"])
def test_a_batch_answers_as_its_samples_alone(any_family, options):
    large = toys.ask(9, "Which color?", toys.photo("astronaut", 1100, 300))
    questions = [*QUESTIONS[1:], large]
    together, alone = (answers(any_family, questions, options, batch_size=n) for n in (8, 1))
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.log.get("box") for a in together] == [a.log.get("box") for a in alone]
    assert len({str(a.log.get("box")) for a in together}) > 4, "the same box everywhere proves nothing"


def test_image_tokens_of_the_answering_pass():
    for model_type, crop in (("llava", 16), ("llava_next", 17)):
        family = toys.make_family(model_type)
        (mine,), (plain,) = answers(family, QUESTIONS[:1], MAPS["rel_att"]), vanilla(family, QUESTIONS[:1])
        assert mine.image_tokens == plain.image_tokens + crop


def test_a_question_without_a_picture_is_answered_as_it_is(family):
    text_only = [q for q in QUESTIONS if not q.read()[0].pictures]
    assert prepare(family, text_only, layer=3) is None
    (mine,), (plain,) = answers(family, text_only, MAPS["rel_att"]), vanilla(family, text_only)
    assert (mine.text, mine.prompt_tokens, mine.log) == (plain.text, plain.prompt_tokens, {})


def test_a_conversation_is_read_once():
    reads = []
    question = replace(QUESTIONS[0], conversation=lambda: reads.append(1) or QUESTIONS[0].read())
    prepare(toys.make_family("llava"), [question], layer=3, high_res=True)
    assert len(reads) == 1


def test_earlier_turns_stay_and_only_what_was_asked_last_is_replaced():
    (message,) = QUESTIONS[0].read()
    turns = (Message("system", "Be brief."), message, Message("assistant", "white"), Message("user", "And the flag?"))
    changed = vicrop._asking(replace(QUESTIONS[0], conversation=lambda: turns), "Describe.").read()
    assert changed == (*turns[:3], Message("user", "Describe."))
    answered = answers(toys.make_family("llava"), [replace(QUESTIONS[0], conversation=lambda: turns)], MAPS["rel_att"])
    assert answered[0].log["box"]


@pytest.mark.parametrize(
    ("name", "size"), [("rel_att", (4000, 1)), *[(name, size) for name in MAPS for size in ((1, 1), (1, 900), (3, 5))]]
)
def test_pictures_of_extreme_shape(name, size):
    family = toys.make_family("llava")
    (record,) = prepare(family, [toys.ask(0, "What is it?", toys.photo("cat", *size))], **MAPS[name]).log
    left, top, right, bottom = record["box"]
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


# ---- records ---------------------------------------------------------------------------------------------------------
def test_crops_are_saved_under_task_and_document(tmp_path):
    family, folder = toys.make_family("llava"), tmp_path / "new" / "crops"
    questions = [replace(QUESTIONS[0], task="group/task"), QUESTIONS[1], QUESTIONS[7]]
    found = answers(family, questions, {**MAPS["rel_att"], "save_crops": str(folder)})
    assert sorted(p.name for p in folder.iterdir()) == ["group_task_0.png", "toy_1.png"]
    for question, answer, name in zip(questions, found, ["group_task_0.png", "toy_1.png"], strict=False):
        saved, expected = Image.open(folder / name), picture_of(question).crop(answer.log["box"])
        assert (np.asarray(saved) == np.asarray(expected)).all()


def test_a_folder_for_crops_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OptionError, match=r"save_crops=.*file is a file\. Name a folder"):
        ViCrop.from_options({"save_crops": str(file)})
    with pytest.raises(InputError, match=r"save_crops=.*cannot be written"):
        prepare(toys.make_family("llava"), QUESTIONS[:1], layer=3, save_crops=str(file / "below"))


def test_the_trace_records_the_box(tmp_path):
    trace = tmp_path / "trace.jsonl"
    family = toys.make_family("llava")
    found = answers(family, QUESTIONS[:2], {**MAPS["rel_att"], "align": "whole"}, trace=Trace(str(trace)))
    records = {r["doc_id"]: r for r in map(json.loads, trace.read_text().splitlines())}
    for doc_id, answer in enumerate(found):
        assert {k: records[doc_id][k] for k in answer.log} == answer.log
        assert set(answer.log) == {"picture", "box", "window_ratio", "sharpness", "map_layer"}
        assert records[doc_id]["parameters"]["align"] == "whole"


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_the_papers_layer_is_the_default_on_its_trunk():
    assert ViCrop()._block(PAPER) == 14
    assert ViCrop(layer=20)._block(PAPER) == 20
    ViCrop().plan(PAPER)


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        (replace(PAPER, num_blocks=40), {}, r"Name a block in the middle \(0 to 39\), e\.g\. layer=17"),
        (replace(PAPER, text_type="qwen2"), {"map": "grad_att"}, "this checkpoint is 'llava' on a 32-block 'qwen2'"),
        (PAPER, {"layer": 32}, r"layer: the checkpoint has no block 32\. Allowed: 0 to 31"),
        (PAPER, {"layer": -1}, r"layer: the checkpoint has no block -1"),
        (PAPER, {"layer": 14, "map": "pure_grad"}, "layer=14 has no meaning with map=pure_grad"),
        (PAPER, {"map": "rel"}, r"map=rel is not allowed\. Allowed: rel_att, grad_att, pure_grad"),
        (PAPER, {"align": "pad"}, r"align=pad is not allowed\. Allowed: processor, whole"),
        (PAPER, {"crops": "x"}, "Unknown option 'crops'"),
    ],
)
def test_options_that_are_refused(trunk, options, message):
    with pytest.raises(OptionError, match=message):
        ViCrop.from_options(options).plan(trunk)


def test_a_map_of_pixels_needs_no_layer():
    ViCrop(map="pure_grad").plan(replace(PAPER, num_blocks=40))


def test_several_pictures_are_refused_by_name(family):
    question = toys.ask(4, "Which is larger?", picture_of(QUESTIONS[0]), picture_of(QUESTIONS[1]))
    with pytest.raises(InputError, match=r"task toy, split val, document 4: vicrop crops one picture, .* shows 2"):
        prepare(family, [QUESTIONS[0], question], layer=3)
    with pytest.raises(GenerationError, match="document 4"):
        answers(family, [question], MAPS["rel_att"])


@pytest.mark.parametrize("name", MAPS)
def test_a_prompt_that_is_too_long_with_its_crop_is_refused_before_any_pass(name, monkeypatch):
    family = toys.make_family("llava")
    length = vanilla(family, QUESTIONS[:1])[0].prompt_tokens
    monkeypatch.setattr(family, "trunk", replace(family.trunk, max_positions=length + 16))
    passed = []
    handle = family.blocks[0].register_forward_pre_hook(lambda *_: passed.append(1))
    engine = Engine(family, ViCrop.from_options(MAPS[name]), RunOptions(), "vicrop")
    passed.clear()  # the self-check's
    try:
        with pytest.raises(InputError, match=rf"document 0: a prompt of \d+ tokens .*={length + 16}\."):
            engine.answer_batch(QUESTIONS[:1], Generation(max_new_tokens=6))
    finally:
        handle.remove()
    assert not passed


def test_a_crop_that_has_more_tokens_than_its_picture_is_checked_as_it_is():
    """A bound on pixels may leave a square crop more cells than a picture whose sides do not fit it as well."""
    built = qwens.build("qwen2_vl", **toys.SMALL)
    family = load_family("qwen2_vl")(*built, InputOptions(max_pixels=40_000))
    checked = []
    question = toys.ask(0, "What is in the cup?", toys.photo("coffee", 400, 300))
    prepared = ViCrop.from_options({"layer": 3}).prepare([question], MapPasses(family, checked.append))
    tokens = [int((inputs.input_ids == family.trunk.image_token_id).sum()) for inputs in checked]
    left, top, right, bottom = prepared.log[0]["box"]
    assert tokens == [2 * family.base_tokens((400, 300)), 88 + family.base_tokens((right - left, bottom - top))]
    assert tokens[0] == 2 * 88 < tokens[1]
    assert torch.equal(checked[1].input_ids, prepared.inputs.input_ids)


def test_a_map_that_is_no_map_is_refused(monkeypatch):
    family = toys.make_family("llava")
    monkeypatch.setattr(_maps, "EPSILON", float("nan"))
    with pytest.raises(InputError, match=r"document 0: the map has values that are not finite\. Try dtype=float32"):
        prepare(family, QUESTIONS[:1], layer=3)


def test_a_base_view_with_more_tokens_than_cells_is_refused(monkeypatch):
    family = toys.make_family("llava")
    monkeypatch.setattr(type(family), "cells_per_side", 5)
    monkeypatch.setattr(type(family), "base_tokens", lambda family, picture: 16)
    with pytest.raises(InputError, match=r"the base view has 16 tokens, but 5 x 5 cells"):
        prepare(family, QUESTIONS[:1], layer=3)


@pytest.mark.parametrize("name", MAPS)
def test_after_an_exception_the_model_answers_as_before(family, name, monkeypatch):
    before = [a.text for a in answers(family, QUESTIONS[:2], MAPS[name])]
    plain = [a.text for a in vanilla(family, QUESTIONS[:2])]
    engine = Engine(family, ViCrop.from_options(MAPS[name]), RunOptions(), "vicrop")
    with monkeypatch.context() as broken:
        broken.setattr(family.blocks[2].mlp, "forward", lambda *_: 1 / 0)
        with pytest.raises(GenerationError, match=r"document 0\]: ZeroDivisionError"):
            engine.answer([Request(QUESTIONS[0], Generation(max_new_tokens=2))])
    assert family.text_config._attn_implementation == "sdpa"
    assert all(p.requires_grad and p.grad is None for p in family.model.parameters())
    assert [a.text for a in vanilla(family, QUESTIONS[:2])] == plain
    assert [a.text for a in answers(family, QUESTIONS[:2], MAPS[name])] == before
