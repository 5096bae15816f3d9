"""The pass: what the blocks get when the engine calls them, against transformers' own forward and generate."""

import pytest
import torch
from naive import arguments, attention_of_last_token, generate
from toys import SMALL, ask, make_family, mixed_questions, photo

from lmms_ca_plugin.engine import beams
from lmms_ca_plugin.engine.decode import decode
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor


def prompt_of(family, questions):
    return Engine(family, load_method("vanilla")(), RunOptions()).prompt(family.encode(questions))


def answers(family, questions, batch_size, method="vanilla", options=None, **settings):
    engine = Engine(family, load_method(method).from_options(options or {}), RunOptions(batch_size=batch_size), method)
    return engine.answer([Request(q, Generation(**settings)) for q in questions])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_vanilla_answers_are_those_of_generate(any_family, batch_size):
    questions = mixed_questions()
    mine = [a.text for a in answers(any_family, questions, batch_size, max_new_tokens=12)]
    theirs = [ids for q in questions for ids in generate(any_family, [q], max_new_tokens=12)]
    assert mine == [any_family.processor.tokenizer.decode(ids).strip() for ids in theirs]
    assert len(set(mine)) > 3, "a model that answers everything alike proves nothing"


def test_beam_search_is_that_of_generate(any_family):
    questions = mixed_questions()[:4]
    mine = [a.text for a in answers(any_family, questions, 4, max_new_tokens=6, num_beams=3)]
    theirs = generate(any_family, questions, max_new_tokens=6, num_beams=3)
    assert mine == [any_family.processor.tokenizer.decode(ids).strip() for ids in theirs]
    assert mine != [a.text for a in answers(any_family, questions, 4, max_new_tokens=6)]


@pytest.mark.parametrize("penalty", [1.3, 0.5])  # the second takes words of the prompt, from the first token on
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_checkpoints_own_repetition_penalty_is_generates(any_family, settings, penalty, monkeypatch):
    """Over the prompt and the new tokens; a question alone has no padding, which generate would count."""
    questions = mixed_questions()[:5]
    plain = [a.text for a in answers(any_family, questions, 8, max_new_tokens=12, **settings)]
    monkeypatch.setattr(any_family.model.generation_config, "repetition_penalty", penalty)
    mine = [a.text for a in answers(any_family, questions, 8, max_new_tokens=12, **settings)]
    theirs = [ids for q in questions for ids in generate(any_family, [q], max_new_tokens=12, **settings)]
    assert mine == [any_family.processor.tokenizer.decode(ids).strip() for ids in theirs]
    assert mine != plain


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5}], ids=["greedy", "sampled"])
def test_a_padding_token_that_ends_answers_is_not_penalised_for_padding(settings):
    """As Qwen's is, which would have short questions answered otherwise in a batch than alone."""
    sizes = TinySettings("llava", **SMALL, eos_gain=4)
    family = load_family("llava")(build_model(sizes), build_processor(sizes))
    family.model.generation_config.repetition_penalty = 1.5
    family.processor.tokenizer.pad_token = family.processor.tokenizer.eos_token
    alone, batch = (answers(family, mixed_questions(), size, max_new_tokens=12, **settings) for size in (1, 8))
    assert [a.text for a in alone] == [a.text for a in batch]


def two_lengths():
    family = make_family("llava")
    return Run(family, Plan(), prompt_of(family, [ask(0, "Why?"), ask(1, "What is in the cup on the table?")]), 2)


def test_beams_are_told_of_no_padding_either(monkeypatch):
    run, told = two_lengths(), []
    monkeypatch.setattr(beams._Steps, "generate", lambda _, input_ids, **given: told.append(input_ids) or input_ids)
    assert [tokens.ids for tokens in beams.search(run, Generation(num_beams=2), frozenset({2}), 0)] == [[], []]
    assert torch.equal(told[0], run.seen) and not torch.equal(run.seen, run.prompt.input_ids)


def test_padding_is_no_token_of_the_prompt():
    run = two_lengths()
    with run.attached():
        run.prefill()
        run.step(torch.tensor([7, 8]))
    ids, real = run.prompt.input_ids, run.prompt.attention_mask
    assert not real[0].all() and torch.equal(run.seen[:, :-1][real], ids[real])
    assert set(run.seen[0, :-1][~real[0]].tolist()) == {int(ids[0, -1])}
    assert run.seen[:, -1].tolist() == [7, 8]


def test_sampling_does_not_depend_on_the_batch(family):
    questions = mixed_questions()
    hot = {"max_new_tokens": 6, "temperature": 1.5}
    alone = [a.text for a in answers(family, questions, 1, **hot)]
    assert alone == [a.text for a in answers(family, questions, 8, **hot)]
    assert alone != [a.text for a in answers(family, questions, 8, max_new_tokens=6)]
    greedy = [a.text for a in answers(family, questions, 8, max_new_tokens=6)]
    assert greedy == [a.text for a in answers(family, questions, 8, **hot, top_p=1e-9)]


def test_every_block_can_be_entered_again(any_family):
    prompt = prompt_of(any_family, mixed_questions()[:3])
    run = Run(any_family, Plan(), prompt, 1)
    with run.attached():
        step = run.begin()
        entering = [prompt.states]
        for block in range(any_family.trunk.num_blocks):
            entering.append(run.run_blocks(block, block + 1, entering[-1], step))
        whole = any_family.logits(entering[-1][:, -1])
    assert torch.equal(whole, _prefill(any_family, prompt))
    for block, states in enumerate(entering[:-1]):
        again = Run(any_family, Plan(), prompt, 1)
        with again.attached():
            end = again.run_blocks(block, any_family.trunk.num_blocks, states, again.begin())
            assert torch.equal(any_family.logits(end[:, -1]), whole)


def _prefill(family, prompt, plan=None):
    run = Run(family, plan or Plan(), prompt, 1)
    with run.attached():
        return run.prefill()


def test_prefill_logits_equal_the_models_own_forward(any_family):
    own = any_family.model(**arguments(any_family, mixed_questions()[:1])).logits[:, -1]
    assert torch.allclose(_prefill(any_family, prompt_of(any_family, mixed_questions()[:1])), own, rtol=0, atol=1e-12)


def test_maps_equal_eager_attention(any_family):
    """Invariant 3: the recomputed row against `output_attentions=True`, in a left-padded batch."""
    questions = mixed_questions()
    prompt = prompt_of(any_family, questions)
    blocks = range(any_family.trunk.num_blocks)
    run = Run(any_family, Plan(reads=tuple(Read(b) for b in blocks)), prompt, 1)
    with run.attached():
        run.prefill()
    reference = attention_of_last_token(any_family, questions)
    for block in blocks:
        assert (run.reads[Read(block)] - reference[block]).abs().max() < 1e-9
        assert torch.allclose(run.reads[Read(block)].sum(-1), torch.ones(len(questions), dtype=torch.float64))


@pytest.mark.parametrize("site", ["residual", "post_norm", "kv", "value", "scores"])
def test_an_edit_touches_its_site_and_nothing_else(any_family, site):
    """Invariant 4, on what block 3 really computes with."""
    prompt = prompt_of(any_family, mixed_questions()[:3])
    touched = prompt.is_image & (prompt.is_image.long().cumsum(-1) % 3 == 0)  # every third image token
    neutral, strength = (0.0, -1.0) if site == "scores" else (1.0, 0.25)
    values = torch.full(touched.shape, neutral, dtype=torch.float64).masked_fill(touched, strength)
    edit = Edit(3, site, lambda reads, prompt: Decision(values, ({},) * 3))
    seen, baseline = {}, {}
    for store, plan in ((baseline, Plan()), (seen, Plan(edits=(edit,)))):
        attention = any_family.blocks[3].self_attn
        handles = [
            any_family.blocks[3].register_forward_pre_hook(lambda m, a, s=store: s.update(residual=a[0].clone())),
            attention.register_forward_pre_hook(
                lambda m, a, k, s=store: s.update(post_norm=k["hidden_states"].clone()), with_kwargs=True
            ),
        ]
        run = Run(any_family, plan, prompt, 1)
        with run.attached():
            run.prefill()
        length = touched.shape[1]
        layer = run.cache._layers[3]
        store |= {
            "keys": layer.keys[:, :, :length].transpose(1, 2),
            "values": layer.values[:, :, :length].transpose(1, 2),
        }
        for handle in handles:
            handle.remove()
    scaled = {"kv": ("keys", "values"), "value": ("values",), "scores": ()}.get(site, (site,))
    before = {"residual": (), "post_norm": ("residual",), "value": ("residual", "post_norm", "keys")}
    for name in ("residual", "post_norm", "keys", "values"):
        assert torch.equal(seen[name][~touched], baseline[name][~touched]), name
        if name in scaled:
            assert torch.allclose(seen[name][touched], 0.25 * baseline[name][touched]), name
        elif name in before.get(site, ("residual", "post_norm")):
            assert torch.equal(seen[name][touched], baseline[name][touched]), name


def test_nothing_is_left_after_an_exception_in_decoding(family):
    """Invariant 5."""
    run = Run(
        family,
        Plan(edits=(_identity(3, "post_norm"), _identity(4, "scores"))),
        prompt_of(family, mixed_questions()[:1]),
        4,
    )
    hooks = _count_hooks(family)  # transformers leaves some of its own behind
    handle = family.blocks[5].register_forward_pre_hook(_fail_when_decoding)
    with pytest.raises(ZeroDivisionError), run.attached():
        logits = run.prefill()
        run.step(logits.argmax(-1))
    handle.remove()
    assert family.text_config._attn_implementation == "sdpa"
    assert _count_hooks(family) == hooks


def _count_hooks(family):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family.model.modules())


def _fail_when_decoding(module, arguments):
    if arguments[0].shape[1] == 1:
        raise ZeroDivisionError


def _identity(block, site):
    neutral = 0.0 if site == "scores" else 1.0
    return Edit(block, site, lambda r, p: Decision(torch.full(p.kinds.shape, neutral, dtype=p.states.dtype), ({},)))


def test_a_second_method_is_refused(family):
    run = Run(family, Plan(), prompt_of(family, mixed_questions()[:1]), 1)
    with run.attached(), pytest.raises(OptionError, match="two methods at once"), run.attached():
        pass
    assert family.text_config._attn_implementation == "sdpa"


def test_several_pictures_in_one_prompt(family):
    questions = [
        ask(0, "Which one is older?", photo("astronaut", 80, 60), photo("coffee", 60, 90)),
        ask(1, "What is this?", photo("cat", 70, 70)),
        ask(2, "What is two plus two?"),
    ]
    together = [a.text for a in answers(family, questions, 3, max_new_tokens=8)]
    theirs = [family.processor.tokenizer.decode(generate(family, [q], max_new_tokens=8)[0]).strip() for q in questions]
    assert together == theirs
    tokens = [a.image_tokens for a in answers(family, questions, 3)]
    assert tokens[0] > tokens[1] > tokens[2] == 0


def test_float32_answers_match_at_any_batch_size():
    family = make_family("llava_next", dtype=torch.float32)
    questions = mixed_questions()
    one, eight = (answers(family, questions, size, max_new_tokens=8) for size in (1, 8))
    assert [a.text for a in one] == [a.text for a in eight]


def test_the_margin_is_the_closest_choice(family):
    """Against logits of one step at a time; the end's choice counts, sampling has none."""
    prompt = prompt_of(family, mixed_questions()[:2])
    generation = Generation(max_new_tokens=3)
    run = Run(family, Plan(), prompt, 3)
    with run.attached():
        found = decode(run, generation, frozenset(), str)
    again = Run(family, Plan(), prompt, 3)
    with again.attached():
        logits, gaps = again.prefill(), []
        for _ in range(3):
            best = logits.topk(2).values
            gaps.append(best[:, 0] - best[:, 1])
            logits = again.step(logits.argmax(-1))
    assert [new.margin for new in found] == torch.stack(gaps).min(0).values.tolist()
    with (sampled := Run(family, Plan(), prompt, 1)).attached():
        (one, _) = decode(sampled, Generation(max_new_tokens=1, temperature=1.0), frozenset(), str)
    assert one.margin is None
