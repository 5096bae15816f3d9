"""Variants computed together are what each is in a run of its own: every method, every family, any batch."""

import pytest
import torch
from cases import CASES, small_model
from toys import ask, mixed_questions, photo

from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.decode import decode
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.families import family_names
from lmms_ca_plugin.methods import load_method, method_names
from lmms_ca_plugin.methods.dola import Dola

METHODS = {
    f"{name} {options}": load_method(name).from_options(options)
    for name, case in CASES.items()
    for options in (*case.examples, *case.off)
}
TOGETHER = {name: method for name, method in METHODS.items() if not method.makes_inputs}
# Padding, several pictures, none, prompts of other lengths.
QUESTIONS = [
    *mixed_questions()[:5],
    ask(5, "What is two plus two?"),
    ask(6, "Which one is older?", photo("coffee", 120, 60), photo("cat", 60, 130)),
    ask(7, "Why?", photo("rocket", 112, 112)),
]
SETTINGS = {
    "greedy": {"max_new_tokens": 6},
    "sampled": {"max_new_tokens": 4, "temperature": 1.5, "top_p": 0.9},
    "until": {"max_new_tokens": 6, "until": (" 3",)},
}


def token_ids(tokens):
    return "".join(f" {token}" for token in tokens)


def telling_ids(front):
    """Has texts be token ids, so that answers are compared by what was decoded."""
    front.to_text = token_ids
    return front


@pytest.fixture(scope="module", params=family_names())
def family(request):
    return small_model(request.param, num_key_value_heads=2, dtype=torch.float64)


@pytest.fixture(scope="module")
def alone(family):
    """Every variant in runs of its own, all questions in one batch."""
    engines = {n: telling_ids(Engine(family, m, RunOptions(batch_size=8), n)) for n, m in TOGETHER.items()}
    return {
        setting: {n: e.answer_batch(QUESTIONS, Generation(**given)) for n, e in engines.items()}
        for setting, given in SETTINGS.items()
    }


def test_every_method_is_tried_here():
    assert {type(method) for method in METHODS.values()} == {load_method(name) for name in method_names()}
    assert len(TOGETHER) > 20


@pytest.mark.parametrize(("setting", "batch_size"), [("greedy", 1), ("greedy", 3), ("sampled", 3), ("until", 8)])
def test_tokens_and_logs_are_those_of_runs_alone(family, alone, setting, batch_size):
    branched = telling_ids(Branched(family, TOGETHER, RunOptions(batch_size=batch_size)))
    requests = [Request(question, Generation(**SETTINGS[setting])) for question in QUESTIONS]
    answered = [0] * len(QUESTIONS)
    for indices, answers in branched.answer(requests):
        assert len(indices) <= batch_size and set(answers) == set(TOGETHER)
        for name, of_variant in answers.items():
            for index, answer in zip(indices, of_variant, strict=True):
                answered[index] += 1
                expected = alone[setting][name][index]
                assert (answer.text, answer.new_tokens) == (expected.text, expected.new_tokens), (name, index)
                assert (answer.prompt_tokens, answer.image_tokens) == (expected.prompt_tokens, expected.image_tokens)
                assert_same_log(answer.log, expected.log)
    assert answered == [len(TOGETHER)] * len(QUESTIONS)


def assert_same_log(mine, theirs):
    """Equal, but for the rounding of sums in batches of another size."""
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same_log(mine[key], value)
    elif isinstance(theirs, float):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    else:
        assert mine == theirs


@pytest.mark.parametrize(("model_type", "dtype"), [("llava", torch.float16), ("llava_next", torch.bfloat16)])
def test_in_few_bits_what_differs_was_near_a_tie(model_type, dtype):
    """And whatever the self-check tries holds in them, too.

    Not DoLa: its scores are differences of log-probabilities, and rounding may turn its choice of the early block.
    """
    family = small_model(model_type, num_key_value_heads=2, dtype=dtype)
    found, contrasted = Agreement(0, ()), Agreement(0, ())
    settings = Generation(**SETTINGS["greedy"])
    together = telling_ids(Branched(family, TOGETHER, RunOptions())).answer_batch(QUESTIONS, settings)
    for name, method in TOGETHER.items():
        own = telling_ids(Engine(family, method, RunOptions(), name)).answer_batch(QUESTIONS, settings)
        agreed = Agreement.of(together[name], own)
        if isinstance(method, Dola):
            contrasted += agreed
        else:
            found += agreed
    both = found + contrasted
    assert both.compared == 8 * len(TOGETHER) and both.differing < both.compared / 10
    assert found.widest is None or found.widest < 0.02
    assert contrasted.widest is None or contrasted.widest < 0.5


def test_variants_differ_and_answers_have_other_lengths(alone):
    """Otherwise the comparison would prove nothing."""
    greedy = alone["greedy"]
    assert len({tuple(a.text for a in answers) for answers in greedy.values()}) > 12
    assert len({a.new_tokens for answers in greedy.values() for a in answers}) > 2
    stopped = zip(*([a for n in TOGETHER for a in alone[s][n]] for s in ("greedy", "until")), strict=True)
    assert any(short.new_tokens < whole.new_tokens for whole, short in stopped)
    assert any(a.text != b.text for n in TOGETHER for a, b in zip(greedy[n], alone["sampled"][n], strict=True))


def test_a_budget_that_splits_them_changes_nothing(family, alone, monkeypatch):
    branched = telling_ids(Branched(family, TOGETHER, RunOptions()))
    flown = []

    def counted(flight, *given):
        flown.append(len(flight.seeds))
        return decode(flight, *given)

    monkeypatch.setattr("lmms_ca_plugin.engine.branched.decode", counted)
    for memory in (branched.memory, 2**22):
        branched.memory = memory
        found = branched.answer_batch(QUESTIONS, Generation(**SETTINGS["greedy"]))
        for name, answers in found.items():
            assert [a.text for a in answers] == [a.text for a in alone["greedy"][name]], name
    whole, *parts = flown
    assert len(parts) > 2 and sum(parts) == whole
