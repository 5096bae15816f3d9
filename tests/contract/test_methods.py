"""Every method, found from its folder, on every family, found from its folder: the invariants all of them must keep."""

import json
from functools import cache
from inspect import cleandoc

import pytest
import torch
from cases import CASES, small_model
from naive import arguments, eager, positions
from steps import entering, forced, plan_of, prompt_of
from toys import ask, mixed_questions, photo

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.part import read_states
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import GenerationError, OptionError
from lmms_ca_plugin.families import family_names
from lmms_ca_plugin.methods import load_method, method_names
from lmms_ca_plugin.methods._contract import Method, Plan
from lmms_ca_plugin.options import option_types

EXAMPLES = [(name, options) for name, case in CASES.items() for options in case.examples]
OFF = [(name, options) for name, case in CASES.items() for options in case.off]
TOKENS = torch.tensor([[300] * 3, [320] * 3, [340] * 3])  # (steps, b): what is fed while scores are compared


def name_of(value):
    return "-".join(f"{k}={v}" for k, v in value.items()) or "defaults" if isinstance(value, dict) else str(value)


each_family = pytest.mark.parametrize("model_type", family_names())
each_example = pytest.mark.parametrize(("name", "options"), EXAMPLES, ids=name_of)
each_off = pytest.mark.parametrize(("name", "options"), OFF, ids=name_of)
with_pictures = pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n, o in EXAMPLES if CASES[n].needs_a_picture], ids=name_of
)


def three_questions(name):
    """Pictures of other shapes, texts of other lengths, one sample with two pictures where the method takes them."""
    several = () if CASES[name].one_picture else (photo("cat", 60, 130),)
    return [
        ask(0, "What color is the suit?", photo("astronaut", 80, 80)),
        ask(1, "Which one is older?", photo("coffee", 120, 60), *several),
        ask(2, "Why?", photo("rocket", 112, 112)),
    ]


def test_every_method_has_a_case():
    assert set(CASES) == set(method_names()), "give a new method its case in tests/cases.py"


@pytest.mark.parametrize("model_type", family_names())
def test_every_family_has_a_small_model(model_type):
    assert small_model(model_type).trunk.model_type == model_type


@pytest.mark.parametrize("name", method_names())
def test_every_option_is_documented(name):
    method = load_method(name)
    for option in option_types(method):
        assert f"\n    {option}: " in cleandoc(method.__doc__ or ""), f"{name}: {option} is missing in the docstring"


def makes_inputs(name):
    """Whether a method answers other inputs than those that were asked, in place of a plan."""
    return load_method(name).prepare is not Method.prepare


@cache
def engine_of(model_type, name, options, dtype=torch.float64, batch_size=1):
    method = load_method(name).from_options(dict(options))
    return Engine(small_model(model_type, dtype=dtype), method, RunOptions(batch_size=batch_size), name)


def texts(questions, *engine, max_new_tokens=4, **settings):
    name, options = engine[1], tuple(engine[2].items())
    generation = Generation(max_new_tokens=max_new_tokens, **settings)
    answers = engine_of(engine[0], name, options, *engine[3:]).answer([Request(q, generation) for q in questions])
    return [(a.text, a.new_tokens) for a in answers]


# ---- 1: off is off ---------------------------------------------------------------------------------------------------
def assert_unchanged(model_type, name, options, questions):
    family = small_model(model_type, dtype=torch.float32)
    plan = plan_of(family, name, options)
    assert plan.edits or plan.rescore or plan.observe or name == "vanilla" or makes_inputs(name), (
        "what changes nothing must be installed nevertheless"
    )
    tokens = TOKENS[:, : len(questions)]
    before, _ = forced(family, Plan(), questions, tokens)
    after, _ = forced(family, plan, questions, tokens)
    if any(edit.on_attention for edit in plan.edits):
        assert (before - after).abs().max() <= 1e-5 * before.abs().max()
    else:
        assert torch.equal(before, after)
    for settings in ({}, {"temperature": 1.5}, {"num_beams": 2}):
        mine, plain = (
            texts(questions, model_type, *method, torch.float32, 3, **settings)
            for method in ((name, options), ("vanilla", {}))
        )
        assert mine == plain


@each_off
@each_family
def test_off_is_off(model_type, name, options):
    assert_unchanged(model_type, name, options, three_questions(name))


@with_pictures
@each_family
def test_without_a_picture_nothing_changes(model_type, name, options):
    assert_unchanged(model_type, name, options, [ask(0, "What is two plus two?"), ask(1, "Why?")])


# ---- 2: the batch does not matter ------------------------------------------------------------------------------------
def eight_questions(name):
    return [*mixed_questions()[:5], ask(5, "What is two plus two?"), *three_questions(name)[1:]]


@each_example
@each_family
def test_batch_8_gives_the_tokens_of_batch_1(model_type, name, options):
    alone, batch = (texts(eight_questions(name), model_type, name, options, torch.float64, size) for size in (1, 8))
    assert alone == batch


@each_example
@each_family
def test_sampling_does_not_depend_on_the_batch(model_type, name, options):
    hot = {"temperature": 1.5, "top_p": 0.9, "max_new_tokens": 2}
    questions = three_questions(name)
    alone, batch = (texts(questions, model_type, name, options, torch.float64, size, **hot) for size in (1, 8))
    assert alone == batch


@each_example
@each_family
def test_beams_work_or_are_refused_by_name(model_type, name, options):
    method = model_type, name, options, torch.float64
    try:
        alone = texts(three_questions(name), *method, 1, num_beams=3)
    except GenerationError as error:
        assert isinstance(error.__cause__, OptionError) and name in str(error)
        return
    assert alone == texts(three_questions(name), *method, 8, num_beams=3)


@each_example
@each_family
def test_samples_leave_nothing_behind(model_type, name, options):
    engine = engine_of(model_type, name, tuple(options.items()))
    first, second = three_questions(name)[:2]
    rounds = [engine.answer_batch([question], Generation(max_new_tokens=4)) for question in (first, second, first)]
    assert rounds[0] == rounds[2]
    json.dumps([engine.method.describe(engine.plan), rounds[0][0].log])  # what the trace writes


# ---- 3: what is read is what transformers computes -------------------------------------------------------------------
@each_example
@each_family
def test_reads_equal_transformers_own_outputs(model_type, name, options):
    family, questions = small_model(model_type), three_questions(name)
    plan = plan_of(family, name, options)
    edited = min((edit.block for edit in plan.edits), default=family.trunk.num_blocks)
    reads = [read for read in plan.reads if read.block < edited or (read.block == edited and read.kind != "attention")]
    _, run = forced(family, plan, questions, [])
    given = arguments(family, questions)
    standing = positions(family, given)
    with eager(family):
        out = family.model(**given, position_ids=standing, output_attentions=True, output_hidden_states=True)
    attention_mask = given["attention_mask"].bool()
    for read in reads:
        if read.kind == "attention":
            expected = out.attentions[read.block][:, :, -1].mean(1)
        else:
            expected = read_states(read, out.hidden_states[read.block], attention_mask)
        real = attention_mask if read.kind == "attention" or read.rows == "all" else ...
        assert (run.reads[read] - expected)[real].abs().max() < 1e-9
    assert len(run.reads) == len(plan.reads)


# ---- 4: text is left alone -------------------------------------------------------------------------------------------
@each_example
@each_family
def test_states_of_text_are_untouched_at_the_site(model_type, name, options):
    family = small_model(model_type)
    plan, prompt = plan_of(family, name, options), prompt_of(family, three_questions(name))
    _, run = forced(family, plan, three_questions(name), [])
    for edit, decision in run.part.decisions.items():
        if edit.site != "weights":  # there, values say what a key is, and attention to text may change
            assert (decision.values[~prompt.is_image] == edit.neutral).all()
    touched = {edit.block for edit in plan.edits if edit.site == "residual"}
    for block in touched:
        before, after = (entering(family, p, prompt, block) for p in (Plan(), plan))
        assert torch.equal(before[~prompt.is_image], after[~prompt.is_image])
        masked = (before != after).any(-1).sum(-1).tolist()
        assert masked == [record["masked_tokens"] for record in run.log] and all(masked)


# ---- 5: nothing stays on the model -----------------------------------------------------------------------------------
def hooks(family):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family.model.modules()]


@each_example
@each_family
def test_nothing_is_left_after_an_exception_in_decoding(model_type, name, options):
    engine = engine_of(model_type, name, tuple(options.items()))
    family = engine.family
    hooks_before, (logits_before, _) = hooks(family), forced(family, Plan(), three_questions(name), [])

    def fail(module, args):
        if args[0].shape[1] == 1:
            raise ZeroDivisionError

    handle = family.blocks[-1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            engine.answer_batch(three_questions(name), Generation(max_new_tokens=4))
    finally:
        handle.remove()
    assert hooks(family) == hooks_before
    assert family.text_config._attn_implementation == "sdpa"
    assert torch.equal(forced(family, Plan(), three_questions(name), [])[0], logits_before)


@each_example
@each_family
def test_a_second_method_on_the_model_is_refused(model_type, name, options):
    family = small_model(model_type)
    plan, prompt = plan_of(family, name, options), prompt_of(family, three_questions(name))
    run, other = Run(family, plan, prompt, 1), Run(family, plan, prompt, 1)
    with run.attached(), pytest.raises(OptionError, match="two methods at once are not defined"), other.attached():
        pass


# ---- it bites --------------------------------------------------------------------------------------------------------
@each_example
@each_family
def test_it_bites_on_the_scores_of_every_step(model_type, name, options):
    family, questions = small_model(model_type), three_questions(name)
    if makes_inputs(name):
        mine, plain = (texts(questions, model_type, *method) for method in ((name, options), ("vanilla", {})))
        assert all(a != b for a, b in zip(mine, plain, strict=True))
        return
    before, _ = forced(family, Plan(), questions, TOKENS)
    after, _ = forced(family, plan_of(family, name, options), questions, TOKENS)
    changed = ((before - after).abs() > 1e-6 * before.abs().max()).any(-1)  # (steps, b)
    late = options.get("layers") == "none"  # a penalty alone needs a token to penalise
    assert changed[late:].all()
