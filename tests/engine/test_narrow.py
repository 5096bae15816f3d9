"""The last block does for the last position alone what nobody wants of the others; nothing that comes out changes."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from naive import arguments
from steps import prompt_of
from toys import make_family, mixed_questions
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen2Config

from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.engine.selfcheck import self_check
from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._contract import Family
from lmms_ca_plugin.families.llava import Llava
from lmms_ca_plugin.methods._contract import Decision, Edit, Plan, Read

LAST = 5
QUESTIONS = mixed_questions()[:3]


def on_trunk(config_class):
    """The small LLaVA on another language model."""
    plain = make_family("llava")
    text, config = plain.model.config.text_config, plain.model.config
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    trunk = config_class(
        **{name: getattr(text, name) for name in (*sizes, *tokens)},
        num_key_value_heads=2,
        tie_word_embeddings=False,
        **({"sliding_window": None} if config_class is MistralConfig else {}),
    )
    torch.manual_seed(0)
    shared = {name: getattr(config, name) for name in ("vision_config", "image_seq_length", "vision_feature_layer")}
    model = LlavaForConditionalGeneration(
        LlavaConfig(**shared, text_config=trunk, image_token_index=config.image_token_id)
    )
    model.generation_config = plain.model.generation_config
    return Llava(model.double().eval(), plain.processor)


@contextmanager
def positions_that_pass(**modules):
    """Counts the positions that modules put out."""
    counts = {}
    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: counts.update({name: out.shape[1]}))
        for name, module in modules.items()
    ]
    yield counts
    for handle in handles:
        handle.remove()


def passed(family, plan=None, new=1):
    run = Run(family, plan or Plan(), prompt_of(family, QUESTIONS), new)
    with run.attached():
        scores = [run.prefill()]
        scores += [run.step(torch.full((len(QUESTIONS),), 300 + i)) for i in range(new - 1)]
    return torch.stack(scores), run


@pytest.mark.parametrize("config_class", [MistralConfig, Qwen2Config])
def test_every_trunk_that_the_family_takes_has_these_modules(config_class):
    family = on_trunk(config_class)
    block = family.blocks[LAST]
    with positions_that_pass(query=block.self_attn.q_proj, key=block.self_attn.k_proj, mlp=block.mlp) as counts:
        scores, _ = passed(family)
    assert (counts["query"], counts["mlp"]) == (1, 1) and counts["key"] > 30
    given = arguments(family, QUESTIONS)
    positions = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    whole = family.model(**given, position_ids=positions).logits[:, -1]
    assert (scores[0] - whole).abs().max() < 1e-6 * whole.abs().max()  # their norms round to float32


def test_a_family_that_names_no_modules_has_the_whole_block_run(any_family, monkeypatch):
    block = any_family.blocks[LAST]
    few, _ = passed(any_family)
    monkeypatch.setattr(type(any_family), "narrow", Family.narrow)
    with positions_that_pass(query=block.self_attn.q_proj, mlp=block.mlp) as counts:
        whole, _ = passed(any_family)
    assert min(counts.values()) > 30
    assert torch.allclose(few, whole, rtol=0, atol=1e-12)


def test_where_the_model_adds_something_behind_the_last_block_all_of_it_runs(family, monkeypatch):
    monkeypatch.setattr(family, "trunk", replace(family.trunk, added_after=(LAST,)))
    with positions_that_pass(mlp=family.blocks[LAST].mlp) as counts:
        passed(family)
    assert counts["mlp"] > 30


def uniform(weights, values):
    return torch.where(weights > 0, 1 / weights, 1).log()


@pytest.mark.parametrize("site", ["residual", "post_norm", "kv", "value", "scores", "weights"])
def test_edits_and_reads_at_the_last_block_are_what_they_were(any_family, monkeypatch, site):
    def decide(reads, prompt):
        neutral, strong = (0.0, -2.0) if site in ("scores", "weights") else (1.0, 0.1)
        values = torch.full(prompt.kinds.shape, neutral, dtype=torch.float64)
        return Decision(values.masked_fill(prompt.is_image, strong), ({},) * len(values))

    edit = Edit(LAST, site, decide, uniform if site == "weights" else None)
    plan = Plan((Read(LAST), Read(LAST, "hidden")), (edit,))
    few, run = passed(any_family, plan, new=2)
    plain, _ = passed(any_family, new=2)
    monkeypatch.setattr(type(any_family), "narrow", Family.narrow)
    whole, other = passed(any_family, plan, new=2)
    assert torch.allclose(few, whole, rtol=0, atol=1e-12)
    assert not torch.allclose(few, plain, rtol=0, atol=1e-6)
    for read in plan.reads:
        assert torch.allclose(run.reads[read], other.reads[read], rtol=0, atol=1e-12)
    for kept in ("keys", "values"):
        mine, theirs = (getattr(r.cache._layers[LAST], kept)[:, :, :40] for r in (run, other))
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)


def test_the_self_check_finds_modules_that_are_not_the_blocks(monkeypatch):
    family = make_family("llava")
    right = family.narrow(LAST)
    self_check(family, Plan())
    wrong = replace(right, post_norm=family.blocks[LAST].mlp.down_proj)  # not where the two sums meet
    monkeypatch.setattr(family, "narrow", lambda block: wrong)
    self_check(family, Plan())  # all positions pass, in vain, but what comes out is right
    wrong = replace(right, queries=family.blocks[LAST].self_attn.k_proj)
    with pytest.raises(CheckpointError, match="families/llava.py names in `narrow` does not fit"):
        self_check(family, Plan())
