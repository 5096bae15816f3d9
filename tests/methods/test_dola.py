"""DoLa: formulas by hand, the reference code's at batch 1, and a float64 recomputation from all hidden states."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from naive import arguments, eager
from steps import answers, forced, plan_of, prompt_of, texts
from toys import ask, make_family, mixed_questions
from trunks import SMALL

from lmms_ca_plugin.engine.beams import search
from lmms_ca_plugin.engine.generation import Generation, NewTokens
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods.dola import Dola, contrast, jensen_shannon, log_probabilities, reference_divergence


# ---- formulas --------------------------------------------------------------------------------------------------------
def test_divergences_by_hand():
    p, q = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    m = [0.7, 0.3]

    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    mean_to_both = (kl(m, [0.9, 0.1]) + kl(m, [0.5, 0.5])) / 2
    assert reference_divergence(p.log(), q.log()).item() == pytest.approx(mean_to_both, rel=1e-12)
    textbook = (kl([0.9, 0.1], m) + kl([0.5, 0.5], m)) / 2
    assert jensen_shannon(p.log(), q.log()).item() == pytest.approx(textbook, rel=1e-12)
    assert mean_to_both != pytest.approx(textbook, rel=1e-2)


def test_contrast_by_hand():
    final, early = torch.tensor([0.6, 0.35, 0.05]).log(), torch.tensor([0.8, 0.1, 0.1]).log()
    kept = contrast(final, early, 0.1).tolist()
    assert kept == [pytest.approx(math.log(0.75)), pytest.approx(math.log(3.5)), -math.inf]
    assert contrast(final, early, 0.0).tolist() == [*kept[:2], pytest.approx(math.log(0.5))]
    assert contrast(final, early, 1.0).isfinite().tolist() == [True, False, False]


def test_probabilities_too_small_for_float32_give_numbers():
    sure = log_probabilities(torch.tensor([[400.0, 0.0, -400.0]], dtype=torch.float16))
    other = log_probabilities(torch.tensor([[-400.0, 0.0, 400.0]], dtype=torch.float16))
    for divergence in (reference_divergence, jensen_shannon):
        assert divergence(sure, other).isfinite().all() and divergence(sure, other) > 0
    assert sure.dtype == torch.float32


def reference_code(final, candidates, relative_top=0.1):
    """The steps of voidism/DoLa at batch 1: which candidate, and the scores of plausible tokens."""
    stacked = torch.stack([c[None] for c in candidates])  # (c, 1, v)
    softmax_final, softmax_early = F.softmax(final[None], -1), F.softmax(stacked, -1)
    m = 0.5 * (softmax_final[None] + softmax_early)
    kl1 = F.kl_div(F.log_softmax(final[None], -1)[None], m, reduction="none").mean(-1)
    kl2 = F.kl_div(F.log_softmax(stacked, -1), m, reduction="none").mean(-1)
    chosen = int((0.5 * (kl1 + kl2)).mean(-1).argmax())
    scores = F.log_softmax(final, -1)
    least = min(scores.sort(descending=True).values[0], scores.max() + math.log(relative_top))
    out = scores - F.log_softmax(candidates[chosen], -1)
    return chosen, out.masked_fill(scores < least, -math.inf)


# ---- against all hidden states ---------------------------------------------------------------------------------------
def hidden_states(family, question, tokens):
    """States entering every block at the last prompt token and each of the new ones: (blocks, n + 1, e)."""
    given = arguments(family, [question])
    given["input_ids"] = torch.cat([given["input_ids"], tokens[None]], 1)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if "mm_token_type_ids" in given:
        given["mm_token_type_ids"] = F.pad(given["mm_token_type_ids"], (0, len(tokens)))  # the new ones are text
    with eager(family):
        out = family.model(**given, output_hidden_states=True)
    return torch.stack([s[0, -len(tokens) - 1 :] for s in out.hidden_states[:-1]]), out.logits[0, -len(tokens) - 1 :]


@pytest.mark.parametrize("bucket", ["low", "high", "0:1:5"])
@pytest.mark.parametrize("norm", [False, True])
def test_scores_and_layers_equal_the_reference_code_from_all_hidden_states(any_family, bucket, norm):
    question = mixed_questions()[2]
    candidates = {"low": [0, 2], "high": [3, 5], "0:1:5": [0, 1, 5]}[bucket]
    ids = torch.tensor([301, 377, 450, 320])
    scores, run = forced(
        any_family, plan_of(any_family, "dola", {"layers": bucket, "norm": norm}), [question], ids[:, None]
    )
    states, logits = hidden_states(any_family, question, ids)
    for step in range(len(ids) + 1):
        early = states[candidates, step]
        early = any_family.model.lm_head(any_family.norm(early) if norm else early)
        chosen, expected = reference_code(logits[step], list(early))
        assert run.step_log([NewTokens(ids.tolist(), True)])[0]["early_layers"][step] == candidates[chosen]
        finite = expected.isfinite()
        assert torch.equal(finite, scores[step, 0].isfinite())
        assert torch.allclose(scores[step, 0][finite], expected[finite], rtol=1e-9, atol=1e-9)


def test_every_sample_has_its_own_layer_at_every_step(any_family):
    questions = mixed_questions()
    together = answers(any_family, questions, "dola", {"layers": "0:2:4:5"}, batch_size=8, max_new_tokens=6)
    alone = answers(any_family, questions, "dola", {"layers": "0:2:4:5"}, batch_size=1, max_new_tokens=6)
    assert [(a.text, a.log) for a in together] == [(a.text, a.log) for a in alone]
    chosen = [a.log["early_layers"] for a in together]
    assert len({layers[0] for layers in chosen}) > 1, "a batch that agrees proves nothing"
    assert any(len(set(layers)) > 1 for layers in chosen)
    for answer in together:
        assert len(answer.log["early_layers"]) - answer.new_tokens in (0, 1)  # 1: the end token


def test_both_divergences_are_used(family):
    chosen = [
        [a.log["early_layers"] for a in answers(family, mixed_questions(), "dola", options, max_new_tokens=6)]
        for options in ({"layers": "0:1:2:3:4:5"}, {"layers": "0:1:2:3:4:5", "divergence": "jsd"})
    ]
    assert chosen[0] != chosen[1]


def test_beams_log_the_layers_of_the_answer_that_won(any_family):
    questions = mixed_questions()[:3]
    options = {"layers": "0:2:4:5"}
    found = answers(any_family, questions, "dola", options, batch_size=3, max_new_tokens=5, num_beams=3)
    assert [a.text for a in found] != texts(any_family, questions, "dola", options, batch_size=3, max_new_tokens=5)
    assert [a.text for a in found] != texts(any_family, questions, "vanilla", None, max_new_tokens=5, num_beams=3)
    plan = plan_of(any_family, "dola", options)
    for question, answer in zip(questions, found, strict=True):
        run = Run(any_family, plan, prompt_of(any_family, [question]), 5)
        with run.attached():
            (new,) = search(run, Generation(max_new_tokens=5, num_beams=3), frozenset({2}), pad_token=0)
        _, again = forced(any_family, plan, [question], torch.tensor(new.ids)[:, None])
        assert again.step_log([new])[0]["early_layers"] == answer.log["early_layers"]
        assert len(answer.log["early_layers"]) == len(new.ids) + new.ended


# ---- repetition penalty ----------------------------------------------------------------------------------------------
def test_penalty_counts_generated_tokens_only_and_comes_after_the_contrast(family):
    question = ask(0, "What color is the suit?")
    tokens = torch.tensor([[301], [377], [301]])
    plain, _ = forced(family, plan_of(family, "dola", {"relative_top": 0}), [question], tokens)
    penalised, _ = forced(
        family, plan_of(family, "dola", {"relative_top": 0, "repetition_penalty": 1.2}), [question], tokens
    )
    prompt_ids = family.encode([question]).input_ids[0].unique()
    assert torch.equal(penalised[0], plain[0]), "words of the question are not penalised"
    for step, seen in ((1, [301]), (2, [301, 377]), (3, [301, 377])):
        for token in range(plain.shape[2]):
            before, after = plain[step, 0, token], penalised[step, 0, token]
            assert after == (before if token not in seen else before * 1.2 if before < 0 else before / 1.2)
    assert len(prompt_ids) > 3


def test_penalty_works_without_a_contrast_and_changes_answers(family):
    off = texts(family, mixed_questions(), "dola", {"layers": "none"}, max_new_tokens=12)
    strong = {"layers": "none", "repetition_penalty": 3.0}
    assert off == texts(family, mixed_questions(), "vanilla", max_new_tokens=12)
    assert off != texts(family, mixed_questions(), "dola", strong, max_new_tokens=12)


# ---- candidates ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("blocks", "tied", "layers", "candidates"),
    [
        (32, False, "low", range(0, 16, 2)),
        (32, False, "high", range(16, 32, 2)),
        (32, True, "low", range(2, 16, 2)),
        (40, False, "low", range(0, 20, 2)),
        (40, False, "high", range(20, 40, 2)),
        (48, True, "low", range(2, 20, 2)),
        (48, True, "high", range(28, 48, 2)),
        (6, False, "5:0:5", (0, 5)),
        (6, False, "none", ()),
    ],
)
def test_buckets(blocks, tied, layers, candidates):
    plan = Dola.from_options({"layers": layers}).plan(replace(SMALL, num_blocks=blocks, tied_embeddings=tied))
    assert [read.block for read in plan.reads] == list(candidates)
    assert all(read.every_step and read.kind == "hidden" for read in plan.reads)
    assert not plan.edits


def test_a_tie_of_head_and_embedding_is_seen_in_the_weights():
    from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

    settings = TinySettings("llava", num_blocks=6, hidden_size=32, image_size=56)
    model, plain = build_model(settings), make_family("llava")
    assert not plain.trunk.tied_embeddings
    model.config.text_config.tie_word_embeddings = model.config.tie_word_embeddings = True
    model.tie_weights()
    tied = type(plain)(model, build_processor(settings))
    assert tied.trunk.tied_embeddings
    assert [read.block for read in Dola().plan(tied.trunk).reads] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "0:6"}, r"layers: the checkpoint has no block 6\. Allowed: 0 to 5"),
        ({"layers": "lwo"}, r"layers=lwo is not allowed\. Allowed: low, high, none or whole numbers"),
        ({"relative_top": 1.5}, r"relative_top=1\.5 is not a share"),
        ({"repetition_penalty": 0}, r"repetition_penalty=0\.0 is not allowed\. Allowed: above 0; 1 is off"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(OptionError, match=message):
        load_method("dola").from_options(options).plan(SMALL)


def test_an_empty_bucket_is_refused():
    with pytest.raises(OptionError, match="layers=low names no block of a 4-block checkpoint"):
        Dola().plan(replace(SMALL, num_blocks=4, tied_embeddings=True))
