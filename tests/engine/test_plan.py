"""What a plan may ask for beyond attention maps and factors: hidden reads, score steps, weight edits, probes."""

from dataclasses import replace

import pytest
import torch
from steps import forced, prompt_of
from toys import ask, make_family, mixed_questions, photo

from lmms_ca_plugin.engine import selfcheck
from lmms_ca_plugin.engine.part import Part, read_states
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import complete, self_check
from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Probe, Read, Scores

EVERY_STEP = Read(3, "hidden", every_step=True)


# ---- reads -----------------------------------------------------------------------------------------------------------
def test_states_are_read_by_hand():
    states = torch.tensor([[[9.0, 9.0], [3.0, -4.0], [1.0, 1.0]], [[6.0, 8.0], [0.0, 0.0], [-2.0, 0.0]]])
    attention_mask = torch.tensor([[False, True, True], [True, True, True]])
    assert read_states(Read(0, "hidden"), states, attention_mask).tolist() == [[1, 1], [-2, 0]]
    assert read_states(Read(0, "hidden", "first"), states, attention_mask).tolist() == [[3, -4], [6, 8]]
    assert read_states(Read(0, "hidden", "all", dims=(1,)), states, attention_mask).shape == (2, 3, 1)
    relative = read_states(Read(0, "relative", "first"), states, attention_mask)
    expected = torch.tensor([[3.0, 4.0], [6.0, 8.0]]) / torch.tensor([[12.5**0.5], [50.0**0.5]])
    assert torch.allclose(relative, expected)
    assert read_states(Read(0, "relative", "all", dims=(0,)), states, attention_mask)[1, 1].tolist() == [0]  # not 0 / 0
    half = read_states(Read(0, "relative", "last"), states.half() * 6000, attention_mask)
    assert half.dtype == torch.float32 and half.isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": "first"},
        {"dims": (1,)},
        {"every_step": True},
        {"kind": "hidden", "rows": "all"},
        {"kind": "relative", "rows": "first", "every_step": True},
    ],
)
def test_reads_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError):
        Read(0, **wrong)


def test_states_of_every_step_replace_the_earlier(any_family):
    once = replace(EVERY_STEP, every_step=False)
    seen = []

    def rescore(logits, reads, generated, family):
        seen.append((reads[EVERY_STEP].clone(), reads[once].clone(), generated.tolist()))
        return Scores(logits, ({},) * len(logits))

    tokens = torch.tensor([[300, 301], [310, 311]])
    forced(any_family, Plan((EVERY_STEP, once), rescore=rescore), mixed_questions()[:2], tokens)
    assert [generated for *_, generated in seen] == [[[], []], [[300], [301]], [[300, 310], [301, 311]]]
    assert torch.equal(seen[0][0], seen[0][1])
    assert all(torch.equal(prefill, seen[0][1]) for _, prefill, _ in seen)
    assert not torch.equal(seen[1][0], seen[0][0]) and not torch.equal(seen[2][0], seen[1][0])


def test_an_expanded_run_goes_on_as_so_many_samples(any_family):
    tokens = torch.tensor([300, 301])
    plan = replace(RESCORE, edits=(Edit(3, "weights", nothing, uniform), Edit(4, "scores", nothing)))
    expected, _ = forced(any_family, plan, mixed_questions()[:2], tokens[None])
    run = Run(any_family, plan, prompt_of(any_family, mixed_questions()[:2]), 2)
    with run.attached():
        run.prefill()
        run.expand(2)
        scores = run.step(tokens.repeat_interleave(2))
    assert torch.allclose(scores, expected[1].repeat_interleave(2, 0), rtol=1e-9, atol=1e-12)


# ---- edits of weights ------------------------------------------------------------------------------------------------
def uniform(weights, values):
    """Makes a row uniform over the keys it sees."""
    seen = (weights > 0).to(weights)
    return seen / seen.sum(-1, keepdim=True)


def nothing(reads, prompt):
    return Decision(torch.zeros(prompt.kinds.shape), ({},) * len(prompt.kinds))


def test_only_queries_after_the_last_image_token_are_reweighed(any_family):
    """In a batch with padding, two pictures in one prompt, and a prompt without one."""
    questions = [
        ask(0, "Which?", photo("coffee", 120, 60), photo("cat", 60, 130)),
        ask(1, "What color is it? Why is it there?", photo("astronaut", 80, 80)),
        ask(2, "What is two plus two?"),
    ]
    prompt = prompt_of(any_family, questions)
    outputs = []
    handle = any_family.blocks[3].self_attn.register_forward_hook(lambda m, a, out: outputs.append(out[0].clone()))
    for plan in (Plan(), Plan(edits=(Edit(3, "weights", nothing, uniform),))):
        run = Run(any_family, plan, prompt, 2)
        with run.attached():
            run.prefill()
            run.step(torch.tensor([300, 300, 300]))
    handle.remove()
    changed = (outputs[0] != outputs[2]).any(-1)  # (b, s)
    for row, image in enumerate(prompt.is_image.tolist()):
        last = max((i for i, is_image in enumerate(image) if is_image), default=len(image))
        assert changed[row].tolist() == [i > last for i in range(len(image))]
    assert (outputs[1] != outputs[3]).any(-1).all()  # every new token


def test_values_are_summed_by_the_weights_that_a_function_gives(any_family):
    """Uniform weights give the mean of the values a query sees."""
    question = [ask(0, "Which?", photo("coffee", 120, 60))]
    prompt = prompt_of(any_family, question)
    attended = []
    handle = any_family.blocks[3].self_attn.o_proj.register_forward_pre_hook(lambda m, a: attended.append(a[0]))
    run = Run(any_family, Plan(edits=(Edit(3, "weights", nothing, uniform),)), prompt, 1)
    with run.attached():
        run.prefill()
    handle.remove()
    heads = any_family.trunk.num_heads
    values = run.cache._layers[3].values[0, :, : prompt.states.shape[1]]  # (g, s, d)
    mean = values.mean(1).repeat_interleave(heads // len(values), 0).flatten()
    assert torch.allclose(attended[0][0, -1], mean, rtol=1e-9, atol=1e-12)


def test_a_weights_edit_without_its_function_is_refused():
    with pytest.raises(ValueError, match="needs a reweigh function"):
        Edit(0, "weights", nothing)
    with pytest.raises(ValueError, match="any other takes none; got 'kv'"):
        Edit(0, "kv", nothing, uniform)


# ---- probes ----------------------------------------------------------------------------------------------------------
def test_a_probe_completes_the_plan_from_the_loaded_weights(any_family):
    seen = {}

    def make(reads):
        seen.update(reads)
        return Plan(edits=(Edit(1, "kv", nothing),))

    first = Read(2, "hidden", rows="first")
    plan = complete(any_family, Plan(probe=Probe((first,), make)))
    assert [edit.site for edit in plan.edits] == ["kv"]
    # A causal trunk's first token knows of no other: what the probe saw is what every prompt has there.
    _, run = forced(any_family, Plan(reads=(first,)), mixed_questions()[:3], [])
    assert torch.allclose(run.reads[first], seen[first].expand(3, -1), rtol=1e-9, atol=1e-12)


def test_a_plan_without_a_probe_stays_as_it_is(family):
    plan = Plan()
    assert complete(family, plan) is plan


# ---- the proof at load -----------------------------------------------------------------------------------------------
def rescore(logits, reads, generated, family):
    return Scores(-logits, ({},) * len(logits))


RESCORE = Plan((EVERY_STEP,), rescore=rescore)


def test_the_self_check_passes_on_score_steps_and_weight_edits(family):
    self_check(family, RESCORE)
    self_check(family, Plan(edits=(Edit(3, "weights", nothing, uniform), Edit(0, "residual", nothing))))


def test_a_first_pass_that_is_off_is_not_what_others_are_compared_with(monkeypatch):
    family, passes, scores = make_family("llava"), [], selfcheck._scores

    def off(*args, **kwargs):
        passes.append(args)
        return scores(*args, **kwargs) + (len(passes) == 1)

    monkeypatch.setattr(selfcheck, "_scores", off)
    self_check(family, Plan())


def test_the_self_check_finds_a_score_step_that_is_not_taken(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(Run, "scores", lambda self, states: self.family.logits(states[:, -1]))
    with pytest.raises(CheckpointError, match="changes none of the first new token"):
        self_check(family, RESCORE)


def test_the_self_check_finds_a_score_step_that_is_taken_in_the_prefill_alone(monkeypatch):
    family = make_family("llava")
    whole = Run.scores
    monkeypatch.setattr(
        Run,
        "scores",
        lambda self, states: self.family.logits(states[:, -1]) if self.generated.shape[1] else whole(self, states),
    )
    with pytest.raises(CheckpointError, match="changes none of the second new token"):
        self_check(family, RESCORE)


def test_the_self_check_finds_an_identity_step_that_is_none(monkeypatch):
    family = make_family("llava")
    whole = Run.scores
    monkeypatch.setattr(
        Run, "scores", lambda self, states: whole(self, states) + (1e-9 if self.plan.rescore is not None else 0)
    )
    with pytest.raises(CheckpointError, match="step on the logits that should change nothing changes them"):
        self_check(family, RESCORE)


def test_the_self_check_finds_scores_that_are_not_numbers(family):
    with pytest.raises(CheckpointError, match="the method's scores are not numbers in torch.float64"):
        self_check(family, replace(RESCORE, rescore=lambda lo, r, g, f: Scores(lo * torch.nan, ({},) * len(lo))))
    with pytest.raises(CheckpointError, match="the method's scores are not numbers"):
        self_check(family, replace(RESCORE, rescore=lambda lo, r, g, f: Scores(lo - torch.inf, ({},) * len(lo))))


def test_the_self_check_finds_a_weights_edit_that_does_not_reach_the_model(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(Part, "_reweighting", lambda self, *_: None)
    with pytest.raises(CheckpointError, match="block 3, site weights, at full strength changes no logit"):
        self_check(family, Plan(edits=(Edit(2, "kv", nothing), Edit(3, "weights", nothing, uniform))))


def test_the_self_check_names_the_identity_that_is_none_among_several(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(Part, "_on_keys", lambda self, edit, k: torch.ones(len(self), k).cumsum(-1))
    with pytest.raises(CheckpointError, match="block 3, site weights, that should change nothing changes the logits"):
        self_check(family, Plan(edits=(Edit(2, "kv", nothing), Edit(3, "weights", nothing, uniform))))
