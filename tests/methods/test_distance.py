"""distance: every block's map against the reference, and that it only looks."""

import math
import re

import pytest
import torch
from naive import attention_of_last_token
from toys import make_family, mixed_questions

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import RunOptions
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Plan
from lmms_ca_plugin.methods.distance import Distance


@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
@pytest.mark.parametrize("to_layer", [None, 2])
def test_distances_are_those_of_the_maps(model_type, to_layer):
    family = make_family(model_type, dtype=torch.float64)
    questions = mixed_questions()[:3]
    engine = Engine(family, Distance(to_layer=to_layer), RunOptions())
    blocks = family.trunk.num_blocks
    for question, answer in zip(questions, engine.answer_batch(questions, Generation(max_new_tokens=2)), strict=True):
        prompt = engine.prompt(family.encode([question]))
        maps = [weights[0][prompt.is_image[0]] for weights in attention_of_last_token(family, [question])]
        maps = [m / m.sum() for m in maps]
        target = maps[blocks - 1 if to_layer is None else to_layer]
        expected = [float(torch.linalg.vector_norm(m.sqrt() - target.sqrt()) / math.sqrt(2)) for m in maps]
        assert list(answer.log["distances"].values()) == pytest.approx(expected, abs=1e-9)
        assert answer.log["to_layer"] == (blocks - 1 if to_layer is None else to_layer)


def test_it_answers_as_vanilla_and_is_computed_with_it():
    family = make_family("llava")
    variants = {"vanilla": load_method("vanilla")(), "look": Distance(), "jsd": Distance(distance="jsd")}
    answers = Branched(family, variants, RunOptions()).answer_batch(mixed_questions()[:3], Generation(max_new_tokens=3))
    assert [a.text for a in answers["look"]] == [a.text for a in answers["vanilla"]]
    assert {a.same_as for a in answers["look"]} == {"vanilla"}
    assert answers["look"][0].log["distances"] != answers["jsd"][0].log["distances"] and not answers["vanilla"][0].log


def test_a_block_that_the_checkpoint_lacks_is_refused():
    with pytest.raises(OptionError, match=re.escape("to_layer: the checkpoint has no block 6. Allowed: 0 to 5.")):
        Distance(to_layer=6).plan(make_family("llava").trunk)


def test_a_plan_that_observes_changes_nothing():
    with pytest.raises(ValueError, match="A plan that observes changes nothing"):
        Plan(observe=lambda reads, prompt: (), rescore=lambda *_: None)
