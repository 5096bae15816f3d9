"""Settings of requests, options as typed, batches, and the proof at load."""

import pytest
import torch
from toys import ask, make_family, mixed_questions

from lmms_ca_plugin import options
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions, batches
from lmms_ca_plugin.engine.selfcheck import self_check
from lmms_ca_plugin.errors import CheckpointError, GenerationError, OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Plan
from lmms_ca_plugin.methods.contrastive import Contrastive


# ---- generation kwargs ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kwargs", "settings"),
    [
        ({}, Generation(16, (), 0.0, 1.0, 1)),
        ({"until": ["\n\n"]}, Generation(16, ("\n\n",))),
        ({"until": "x", "max_new_tokens": 32}, Generation(32, ("x",))),
        ({"temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, Generation()),
        ({"temperature": 0.7, "top_p": 0.9}, Generation(temperature=0.7, top_p=0.9)),
        ({"temperature": 0, "top_p": 0}, Generation(top_p=0.0)),
        ({"do_sample": True}, Generation(temperature=1.0)),
        # --gen_kwargs temperature=0.7 where the task's file says do_sample: false; llava_hf samples there, too
        ({"do_sample": False, "temperature": 0.7}, Generation(temperature=0.7)),
        ({"do_sample": False, "num_beams": 2}, Generation(num_beams=2)),
        ({"top_p": None, "temperature": None, "num_beams": 4}, Generation(num_beams=4)),
        # as --gen_kwargs hands them on
        ({"temperature": "None", "do_sample": "None", "until": "None"}, Generation()),
        ({"max_new_tokens": 8.0, "temperature": "1e-1", "do_sample": "True"}, Generation(8, (), 0.1)),
        ({"until": '["e", "\\n\\n"]'}, Generation(until=("e", "\n\n"))),
        ({"until": "['e']"}, Generation(until=("e",))),
        ({"until": "[]"}, Generation()),
        ({"until": " [INST]"}, Generation(until=(" [INST]",))),
        ({"until": "[INST]"}, Generation(until=("[INST]",))),
        ({"image_aspect_ratio": "original"}, Generation()),
    ],
)
def test_generation_kwargs(kwargs, settings):
    before = dict(kwargs)
    assert Generation.from_kwargs(kwargs) == settings
    assert kwargs == before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_tokens": 5}, "Unknown generation setting 'max_tokens'. Did you mean 'max_new_tokens'?"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is not allowed. Allowed: 1 and more"),
        ({"temperature": -1}, "temperature=-1.0 is not allowed"),
        ({"top_p": 0, "temperature": 1}, "top_p=0.0 is not allowed"),
        ({"num_beams": 0}, "num_beams=0 is not allowed"),
        ({"num_beams": 3, "temperature": 0.5}, "num_beams=3 together with temperature=0.5 is not supported"),
        ({"do_sample": True, "temperature": 0}, "do_sample=true together with temperature=0 .* Give a temperature"),
        ({"max_new_tokens": "abc"}, "max_new_tokens=abc is not allowed. Allowed: a whole number"),
        ({"max_new_tokens": 2.7}, "max_new_tokens=2.7 is not allowed. Allowed: a whole number"),
        ({"num_beams": 2.5}, "num_beams=2.5 is not allowed. Allowed: a whole number"),
        ({"temperature": "hot"}, "temperature=hot is not allowed. Allowed: a number"),
        ({"temperature": float("nan")}, "temperature=nan is not allowed. Allowed: a finite number"),
        ({"temperature": float("inf")}, "temperature=inf is not allowed. Allowed: a finite number"),
        ({"do_sample": "no"}, "do_sample=no is not allowed. Allowed: true, false"),
        ({"until": 5}, r'until=5 is not allowed. Allowed: a text, or a list of texts like \["a", "b"\]'),
        ({"until": "[5]"}, r"until=\[5\] is not allowed. Allowed: a text, or a list of texts"),
        ({"until": ""}, r"until=\[''\] holds an empty text, .* until=\[\] stands for none"),
        ({"until": ["x", ""]}, r"until=\['x', ''\] holds an empty text"),
    ],
)
def test_generation_kwargs_that_are_refused(kwargs, message):
    with pytest.raises(OptionError, match=message):
        Generation.from_kwargs(kwargs)


def test_settings_made_by_hand_are_checked_too():
    with pytest.raises(OptionError, match="temperature=nan is not allowed"):
        Generation(temperature=float("nan"))


def test_an_answer_ends_before_its_stop_text():
    family = make_family("llava")
    engine = Engine(family, load_method("vanilla")(), RunOptions(batch_size=4))
    questions = mixed_questions()[:4]
    plain = engine.answer([Request(q, Generation(max_new_tokens=12)) for q in questions])
    stop = next(a.text[2] for a in plain if len(a.text) > 3)
    cut = engine.answer([Request(q, Generation(max_new_tokens=12, until=(stop,))) for q in questions])
    for whole, short in zip(plain, cut, strict=True):
        assert short.text == whole.text.split(stop)[0].strip()
        assert short.new_tokens <= whole.new_tokens
    assert any(s.new_tokens < w.new_tokens for s, w in zip(cut, plain, strict=True)), "nothing ended early"


# ---- options --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ({"scope": "2:4:8"}, (2, 4, 8)),
        ({"scope": 7}, (7,)),
        ({"scope": (1, 2)}, (1, 2)),
        ({"scope": "deep"}, "deep"),
        ({"review_layer": 3.0}, 3),
        ({"review_layer": "None"}, None),
        ({"rho": "1e-1"}, 0.1),
        ({"rho": 1}, 1.0),
        ({"renormalise": "False"}, False),
        ({"renormalise": True}, True),
        ({"profile": "p.json"}, "p.json"),
        ({"profile": "None"}, None),
    ],
)
def test_options_become_what_their_fields_say(typed, value):
    (name,) = typed
    got = getattr(options.build(Contrastive, typed), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"review_layer": "2.5"}, "review_layer=2.5 is not allowed. Allowed: a whole number or None"),
        ({"scope": "2:x"}, "whole numbers joined by colons"),
        ({"rho": True}, "rho=True is not allowed. Allowed: a number"),
        ({"rho": "nan"}, "rho=nan is not allowed. Allowed: a finite number"),
    ],
)
def test_options_that_do_not_fit_their_fields(typed, message):
    with pytest.raises(OptionError, match=message):
        options.build(Contrastive, typed)


def test_options_are_dealt_out_and_a_stranger_is_named():
    classes = (CheckpointOptions, InputOptions, RunOptions, Contrastive)
    dealt = options.split({"rho": 0.3, "pretrained": "x", "seed": 1}, classes)
    assert dealt == [{"pretrained": "x"}, {}, {"seed": 1}, {"rho": 0.3}]
    with pytest.raises(OptionError, match="Unknown option 'pretraind'. Did you mean 'pretrained'"):
        options.split({"pretraind": "x"}, classes)
    names = [name for cls in classes for name in options.option_types(cls)]
    assert len(names) == len(set(names)), "two classes share an option's name"


# ---- batches --------------------------------------------------------------------------------------------------------
def test_batches_share_settings_and_go_from_long_to_short():
    kinds = [Generation(16), Generation(32)]
    requests = [Request(ask(i, "x" * (i % 5 + 1)), kinds[i % 2]) for i in range(13)]
    dealt = list(batches(requests, 4))
    assert sorted(i for batch in dealt for i in batch) == list(range(13))
    assert all(len({requests[i].generation for i in batch}) == 1 and len(batch) <= 4 for batch in dealt)
    for generation in kinds:
        lengths = [requests[i].question.length for b in dealt for i in b if requests[i].generation == generation]
        assert lengths == sorted(lengths, reverse=True)


def test_answers_come_back_in_the_order_asked(family):
    engine = Engine(family, load_method("vanilla")(), RunOptions(batch_size=3))
    requests = [Request(q, Generation(4 + i % 2)) for i, q in enumerate(mixed_questions())]
    together = [a.text for a in engine.answer(requests)]
    assert together == [engine.answer([r])[0].text for r in requests]


def test_a_failure_names_every_document_of_its_batch(monkeypatch):
    engine = Engine(make_family("llava"), load_method("vanilla")(), RunOptions(batch_size=2))
    monkeypatch.setattr(engine, "prompt", lambda inputs: 1 / 0)
    with pytest.raises(
        GenerationError, match=r"task toy, split val, document 1; task .*document 0\]: ZeroDivisionError"
    ):
        engine.answer([Request(q, Generation()) for q in (ask(0, "?"), ask(1, "Why?"))])


# ---- the proof at load ----------------------------------------------------------------------------------------------
def contrastive(**given):
    return Contrastive.from_options({"scope": "0:1:2", "review_layer": 4, **given}).plan(make_family("llava").trunk)


@pytest.mark.parametrize("site", ["residual", "post_norm", "kv", "value", "logit", "knockout"])
def test_the_self_check_passes_on_every_site(family, site):
    self_check(family, contrastive(site=site))


def test_the_self_check_finds_an_edit_that_does_not_reach_the_model(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr("lmms_ca_plugin.engine.cache.KeyValueCache.scale", lambda *_: None)
    with pytest.raises(CheckpointError, match="block 4, site kv, at full strength changes no logit"):
        self_check(family, contrastive(site="kv"))


def test_the_self_check_finds_an_identity_that_is_none(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(
        "lmms_ca_plugin.engine.cache.KeyValueCache.scale",
        lambda self, block, keys, values: self._factors.update({block: (values + 0.1, values + 0.1)}),
    )
    with pytest.raises(CheckpointError, match="site kv, that should change nothing changes the logits"):
        self_check(family, contrastive(site="kv"))


def test_the_self_check_finds_logits_that_are_not_numbers(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(family, "logits", lambda states: torch.full((1, 9), float("nan")))
    with pytest.raises(CheckpointError, match="logits are not finite"):
        self_check(family, Plan())


def test_the_self_check_wants_image_tokens(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(
        family, "encode", lambda questions: make_family("llava").__class__.encode(family, [ask(0, "Hm?")])
    )
    with pytest.raises(CheckpointError, match="has no image token"):
        self_check(family, Plan())
