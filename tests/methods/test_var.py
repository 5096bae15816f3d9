"""VAR: the redistribution by hand, planted sinks against an eager rewrite, and where sink dims come from."""

from dataclasses import replace
from functools import cache

import pytest
import torch
import transformers.models.llama.modeling_llama as llama
from naive import eager, eager64
from steps import forced, plan_of, prompt_of
from toys import ask, make_family, mixed_questions, photo
from trunks import PAPER

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import RunOptions
from lmms_ca_plugin.engine.selfcheck import self_check
from lmms_ca_plugin.errors import CheckpointError, OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Plan
from lmms_ca_plugin.methods.var import Var

SINKS = torch.tensor([[True, True, False, False, False]])
IMAGE = torch.tensor([[False, True, True, True, False]])
DIMS = (7, 300)


# ---- the redistribution, by hand -------------------------------------------------------------------------------------
def redistributed(weights, sinks=SINKS, **options):
    method, weights = Var(**options), torch.tensor(weights, dtype=torch.float64).view(1, 1, 1, -1)
    return method._reweigh(weights, method._table(sinks, IMAGE, weights.dtype)).flatten().tolist()


def test_freed_mass_goes_to_image_tokens_in_proportion():
    # Sinks 0.4 + 0.1 keep 0.3; the freed 0.2 goes 1:3 to image tokens that had 0.1 and 0.3.
    after = redistributed([0.4, 0.1, 0.1, 0.3, 0.1])
    assert after == pytest.approx([0.24, 0.06, 0.15, 0.45, 0.1])
    assert sum(after) == pytest.approx(1)


def test_keep_zero_and_keep_one():
    assert redistributed([0.4, 0.1, 0.1, 0.3, 0.1], keep=0.0) == pytest.approx([0, 0, 0.225, 0.675, 0.1])
    assert redistributed([0.4, 0.1, 0.1, 0.3, 0.1], keep=1.0) == [0.4, 0.1, 0.1, 0.3, 0.1]


@pytest.mark.parametrize(
    ("weights", "acts"),
    [
        ([0.5, 0.0625, 0.0625, 0.0625, 0.3125], False),  # S = 0.1875
        ([0.5, 0.0625, 0.0625, 0.125, 0.25], True),  # S = 0.25
        ([0.25, 0.25, 0.125, 0.125, 0.25], True),  # half of S is on the visual sink
        ([0.25, 0.28125, 0.125, 0.125, 0.21875], False),  # more than half
    ],
)
def test_only_heads_with_enough_attention_on_few_sinks_are_changed(weights, acts):
    assert (redistributed(weights) != weights) == acts


def test_a_sample_without_a_visual_sink_is_left_alone():
    weights = [0.4, 0.1, 0.1, 0.3, 0.1]
    assert redistributed(weights, SINKS & ~IMAGE) == weights


# ---- planted sinks ---------------------------------------------------------------------------------------------------
@cache
def planted_class(base):
    class Planted(base):
        """Two massive dims at the first token and, of three documents in four, at one image token."""

        def embed(self, inputs):
            prompt = super().embed(inputs)
            for row, question in enumerate(inputs.questions):
                first = int(prompt.attention_mask[row].long().argmax())
                images = prompt.is_image[row].nonzero().flatten().tolist()
                for position in [first, *([images[2 + question.doc_id]] if images and question.doc_id % 4 < 3 else [])]:
                    # sqrt(512 / (1 + 1/16)) = 21.9: just above 20 while nothing else in the state matters
                    prompt.states[row, position, DIMS[0]] = 4000.0
                    prompt.states[row, position, DIMS[1]] = -1000.0
            return prompt

    return Planted


@cache
def planted(model_type):
    plain = make_family(model_type, "processor", num_blocks=5, hidden_size=512, num_heads=8, num_key_value_heads=4)
    return planted_class(type(plain))(plain.model, plain.processor, plain.inputs)


@pytest.fixture(params=["llava", "llava_next"])
def sinking(request):
    return planted(request.param)


def rewritten(family, question, tokens, tau=20.0, keep=0.6):
    """The rule in plain loops inside eager attention: logits (n + 1, v), and how many rows were changed.

    One pass over prompt and new tokens, without a cache: a new token is a query after the image like any other.
    """
    prompt = prompt_of(family, [question])
    blocks = range(2, family.trunk.num_blocks - 1)
    is_image = [*prompt.is_image[0].tolist(), *[False] * len(tokens)]
    last_image = max(i for i, image in enumerate(is_image) if image)
    sinks, rows = {}, {"changed": 0, "left": 0}

    def note(module, args):
        relative = args[0][0] / args[0][0].pow(2).mean(-1, keepdim=True).sqrt()
        above = (relative[:, list(DIMS)].abs().amax(-1) > tau).tolist()
        sinks[module.self_attn.layer_idx] = [i for i in range(prompt.states.shape[1]) if above[i]]

    def attend(module, query, key, value, attention_mask, scaling, **kwargs):
        output, weights = eager64(module, query, key, value, attention_mask, scaling)
        sink = sinks.get(module.layer_idx, [])
        visual_sinks = [i for i in sink if is_image[i]]
        others = [i for i, image in enumerate(is_image) if image and i not in sink]
        for head in range(weights.shape[1] if visual_sinks else 0):
            for q in range(last_image + 1, weights.shape[2]):
                row = weights[0, head, q]
                image = sum(row[i] for i in visual_sinks) + sum(row[i] for i in others)
                if image < 0.2 or sum(row[i] for i in visual_sinks) / image > 0.5:
                    rows["left"] += 1
                    continue
                rows["changed"] += 1
                freed = (1 - keep) * sum(row[i] for i in sink)
                share = [row[i] / sum(row[j] for j in others) for i in others]
                row[sink] *= keep
                for i, part in zip(others, share, strict=True):
                    row[i] += freed * part
                output[0, q, head] = row @ value[0, head // (query.shape[1] // key.shape[1])]
        return output, weights

    handles = [family.blocks[b].register_forward_pre_hook(note) for b in blocks]
    states = torch.cat([prompt.states, family.embed_tokens(tokens[None])], 1)
    with eager(family):
        llama.eager_attention_forward = attend
        logits = family.model(
            inputs_embeds=states, attention_mask=torch.ones(states.shape[:2], dtype=torch.long)
        ).logits
    for handle in handles:
        handle.remove()
    return logits[0, -len(tokens) - 1 :], rows


@pytest.mark.parametrize("doc_id", [0, 1, 3])
def test_scores_equal_an_eager_rewrite(sinking, doc_id):
    question = ask(doc_id, "What color is it?", photo("coffee", 120, 60))
    tokens = torch.tensor([300, 310, 320])
    logits, rows = rewritten(sinking, question, tokens)
    scores, run = forced(sinking, plan_of(sinking, "var", {}), [question], tokens[:, None])
    assert (scores[:, 0] - logits).abs().max() < 1e-9 * logits.abs().max()
    assert run.log[0]["visual_sinks"] == dict.fromkeys((2, 3), int(doc_id % 4 < 3))
    assert run.log[0]["text_sinks"] == dict.fromkeys((2, 3), 1)
    plain, _ = forced(sinking, Plan(), [question], tokens[:, None])
    if doc_id == 3:
        assert rows == {"changed": 0, "left": 0}
        assert torch.allclose(scores, plain, rtol=1e-12)
    else:
        assert rows["changed"] > 5 and rows["left"] > 5, "a rule that always or never acts is not tested"
        assert ((scores - plain).abs().amax(-1) > 1e-3).all(), "prefill and every step"


def test_sinks_belong_to_their_own_sample(sinking):
    """The public code keeps the first sample's sinks for all that follow."""
    questions = [ask(i, "What is it?", photo("cat", 60 + 20 * i, 90)) for i in (3, 0, 1)]
    engine = Engine(sinking, Var(), RunOptions(), "var")
    four = Generation(max_new_tokens=4)
    alone = [engine.answer_batch([q], four)[0] for q in questions]
    backwards = [engine.answer_batch([q], four)[0] for q in reversed(questions)]
    assert alone == backwards[::-1] == engine.answer_batch(questions, four)
    assert [a.log["visual_sinks"][2] for a in alone] == [0, 1, 1]


def test_where_there_is_no_visual_sink_nothing_is_decided(sinking):
    """So that a study computes such a sample once, as its baseline."""
    questions = [ask(i, "What is it?", photo("cat", 60, 90)) for i in (3, 0)]
    _, run = forced(sinking, plan_of(sinking, "var", {}), questions, [])
    assert [[bool(values.any()) for values in d.values] for d in run.part.decisions.values()] == [[False, True]] * 2


def test_nothing_but_the_sink_dims_is_kept(sinking):
    _, run = forced(sinking, plan_of(sinking, "var", {}), mixed_questions()[:2], [])
    assert {tuple(t.shape[2:]) for t in run.reads.values()} == {(2,)}
    assert len(run.reads) == sinking.trunk.num_blocks - 3


# ---- sink dims -------------------------------------------------------------------------------------------------------
def test_sink_dims_are_found_by_rule_and_reported(sinking):
    plan = plan_of(sinking, "var", {})
    assert {tuple(sorted(read.dims)) for read in plan.reads} == {DIMS}
    self_check(sinking, plan)
    _, run = forced(sinking, plan, [ask(0, "Why?")], [])
    assert sorted(run.log[0]["sink_dims"]) == list(DIMS)


def test_the_median_over_blocks_decides():
    plan = Var().plan(replace(PAPER, text_type="qwen2", num_blocks=7, hidden_size=1024))
    values = torch.ones(4, 1024)  # blocks 2 to 5
    values[:, 5] = torch.tensor([25.0, 26.0, 27.0, 0.0])  # median 25.5
    values[:, 9] = torch.tensor([31.0, 31.0, 1.0, 1.0])  # median 16, though the largest mean and maximum
    values[:, 11] = 17.0
    assert [read.block for read in plan.probe.reads] == [2, 3, 4, 5]
    made = plan.probe.complete({read: row[None] for read, row in zip(plan.probe.reads, values, strict=True)})
    assert made.reads[0].dims == (5, 11)


def test_a_checkpoint_without_massive_dims_is_refused():
    family = make_family("llava", hidden_size=512, num_heads=8)
    with pytest.raises(CheckpointError, match=r"var: no sink dims\..*exceeds tau=20; the largest is .*sink_dims="):
        plan_of(family, "var", {})


@pytest.mark.parametrize(
    ("other", "dims"),
    [
        ({}, (2533, 1415)),
        ({"num_blocks": 40, "hidden_size": 5120}, (2100, 4743)),
        ({"vocabulary": 128320}, None),  # LLaMA-3: the same shape
        ({"text_type": "mistral"}, None),
    ],
)
def test_known_dims_are_those_of_llama_2(other, dims):
    trunk = replace(PAPER, **other)
    plan = Var().plan(trunk)
    assert (plan.probe is None) == (dims is not None)
    assert {read.dims for read in plan.reads} == ({dims} if dims else set())
    assert [edit.block for edit in plan.edits] == (list(range(2, trunk.num_blocks - 1)) if dims else [])
    named = Var(sink_dims=(1, 2)).plan(trunk)
    assert {read.dims for read in named.reads} == {(1, 2)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"tau=20 cannot be exceeded: .* sqrt\(hidden size\) = 5\.657\. Give a smaller tau"),
        ({"tau": 0}, "tau=0.0 is not allowed"),
        ({"tau": 2, "keep": 1.5}, r"keep=1\.5 is not a share"),
        ({"tau": 2, "min_attention": 0}, "min_attention=0.0 is not allowed"),
        ({"tau": 2, "max_sink_share": 1}, r"max_sink_share=1\.0 is not allowed"),
        ({"tau": 2, "sink_dims": "3:32"}, r"no dimension 32\. Allowed: 0 to 31"),
    ],
)
def test_refusals(family, options, message):
    with pytest.raises(OptionError, match=message):
        load_method("var").from_options(options).plan(family.trunk)


def test_a_trunk_without_blocks_between_is_refused():
    with pytest.raises(OptionError, match=r"has 3 blocks, so none is left\. Needed: at least 4"):
        Var().plan(replace(PAPER, num_blocks=3))
    assert [edit.block for edit in Var(sink_dims=(3,)).plan(replace(PAPER, num_blocks=4)).edits] == [2]
