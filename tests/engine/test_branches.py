"""Branches: what passes once, whose keys are whose, which branches are one, and what is refused."""

from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pytest
import torch
from steps import plan_of, prompt_of
from toys import ask, make_family, mixed_questions, tower

from lmms_ca_plugin.attention import Kernel, attention_weights
from lmms_ca_plugin.engine.branch_cache import Group, SharedCall
from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.branches import Branches
from lmms_ca_plugin.engine.cache import KeyValueCache
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.flight import attached
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.engine.selfcheck import self_check
from lmms_ca_plugin.engine.shared import branching, shared_pass
from lmms_ca_plugin.errors import CheckpointError, GenerationError, MemoryLimitError, OptionError
from lmms_ca_plugin.families.llava import Llava
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan, Read

BLOCKS = 6
QUESTIONS = mixed_questions()[:3]
LAYERS = {"scope": "0:1:2", "review_layer": 3}


def make(name, **options):
    return load_method(name).from_options(options)


VARIANTS = {
    "vanilla": make("vanilla"),
    "L1": make("layermask", layer=1),
    "L4": make("layermask", layer=4),
    "off": make("contrastive", **LAYERS, rho=0),
    "half": make("contrastive", **LAYERS, rho=0.5),
    "again": make("contrastive", **LAYERS, rho=0.5),
    "knockout": make("contrastive", **LAYERS, rho=0.5, site="knockout"),
    "dola": make("dola"),
}


def branched(family, variants=None, **options):
    front = Branched(family, variants or VARIANTS, RunOptions(**options))
    front.end_tokens = frozenset()
    return front


# ---- the plan says where it leaves the baseline ----------------------------------------------------------------------
def test_a_plan_leaves_the_baseline_at_its_lowest_edit():
    edits = tuple(Edit(block, "kv", lambda r, p: None) for block in (4, 2))
    reads = (Read(1), Read(2), Read(3), Read(2, "hidden"), Read(3, "hidden"))
    assert Plan(reads, edits).first_block(BLOCKS) == 2
    assert Plan(reads, edits).shared_reads(BLOCKS) == (Read(1), Read(2, "hidden"))
    assert Plan(reads).first_block(BLOCKS) == BLOCKS
    assert Plan(reads).shared_reads(BLOCKS) == reads


# ---- rows over one prompt's keys -------------------------------------------------------------------------------------
PADDING = torch.tensor([[True, True, True], [False, True, True]])
DEALT = Group.of(2, [1, 0, 1, 1], PADDING, steps=2)


def test_rows_are_dealt_out_to_their_samples():
    assert DEALT.rows == slice(2, 6)
    assert DEALT.places.tolist() == [[1, 0, 0], [0, 2, 3]]
    assert DEALT.back.tolist() == [3, 0, 4, 5]
    rows = torch.arange(4.0)[:, None, None, None].expand(4, 2, 1, 3)
    assert torch.equal(DEALT.scatter(DEALT.gather(rows)), rows.transpose(1, 2))  # heads come last there


def test_a_row_sees_its_prompt_and_its_own_new_tokens():
    prompt, first, second = DEALT.allowed[1, 0].int().split(3, -1)
    assert prompt.tolist() == [[0, 1, 1]] * 3
    assert torch.equal(first, torch.eye(3, dtype=torch.int)) and torch.equal(second, first)
    assert DEALT.allowed[0, 0, 0].int().tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shared_attention_is_that_of_each_row_alone(groups):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 4, 1, 8, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, 2, groups, 6, 8, generator=generator, dtype=torch.float64)  # one step behind 3
    out = SharedCall(DEALT, keys, values).attend(Kernel(None, "sdpa", 0.3, {}), query, query, query, None)
    assert out.shape == (4, 1, 4, 8)
    for row, (sample, j) in enumerate([(1, 0), (0, 0), (1, 1), (1, 2)]):
        seen = [i for i in range(3) if PADDING[sample, i]] + [3 + j]
        mine, its = (kept[sample : sample + 1, :, seen] for kept in (keys, values))
        weights = attention_weights(query[row : row + 1], mine, 0.3, torch.ones(1, 1, 1, len(seen), dtype=torch.bool))
        expected = weights @ its.repeat_interleave(4 // groups, 1)  # (1, h, 1, d)
        assert torch.allclose(out[row, 0], expected[0, :, 0], rtol=1e-12, atol=1e-12)


# ---- what passes -----------------------------------------------------------------------------------------------------
@contextmanager
def passes(family):
    """Counts the positions that pass each block in prompts' passes, and rows and calls in decoding steps."""
    prompts, steps, towers = Counter(), [], []

    def count(block):
        def hook(module, args):
            rows, positions = args[0].shape[:2]
            if positions > 1:
                prompts[block] += rows * positions
            else:
                steps.append((block, rows))

        return hook

    handles = [block.register_forward_pre_hook(count(i)) for i, block in enumerate(family.blocks)]
    handles.append(tower(family).register_forward_hook(lambda *_: towers.append(1)))
    try:
        yield prompts, steps, towers
    finally:
        for handle in handles:
            handle.remove()


def test_everything_shared_passes_once_and_all_branches_decode_together(family):
    front = branched(family)
    s, b = prompt_of(family, QUESTIONS).states.shape[1], len(QUESTIONS)
    with passes(family) as (prompts, steps, towers):
        front.answer_batch(QUESTIONS, Generation(max_new_tokens=3))
    assert len(towers) == 1
    leaving = {1: 1, 3: 3, 4: 4}  # L1; half and knockout; L4: how many have left by then
    expected, left = {}, 0
    for block in range(BLOCKS):
        left = leaving.get(block, left)
        expected[block] = (1 + left) * b * s
    assert prompts == expected
    rows = b * 6  # vanilla, L1, L4, half, knockout, dola
    assert steps == [(block, rows) for _step in range(2) for block in range(BLOCKS)]


def test_branches_that_pass_in_groups_start_from_the_same_baseline(family):
    """With as little memory as one branch of every sample needs, in steps of a few kilobytes from too little."""
    front, counts = branched(family), []
    enough = front.memory
    for memory in (enough, *range(2**20, enough, 2**14)):
        front.memory = memory
        with passes(family) as (prompts, steps, _), suppress(MemoryLimitError):
            front._answer_together(QUESTIONS, Generation(max_new_tokens=3), family.encode(QUESTIONS))
            counts.append((prompts, sum(rows for _block, rows in steps), len(steps)))
        if len(counts) == 2:
            break
    whole, split = counts
    assert split[:2] == whole[:2] and split[2] > whole[2]


def test_without_a_variant_that_stays_on_it_the_baseline_ends_where_the_last_leaves(family):
    front = branched(family, {"half": VARIANTS["half"], "off": VARIANTS["off"]})
    s = prompt_of(family, QUESTIONS).states.shape[1]
    with passes(family) as (prompts, _, _):
        front.answer_batch(QUESTIONS, Generation(max_new_tokens=1))
    assert prompts == {block: 3 * s * (1 if block < 3 else 2) for block in range(BLOCKS)}


def test_keys_and_values_are_shared_by_reference_and_never_grow(any_family):
    plans = {name: plan_of(any_family, "layermask", {"layer": n}) for name, n in (("L2", 2), ("L4", 4))}
    plans["vanilla"] = Plan()
    prompt = prompt_of(any_family, QUESTIONS)
    s, new = prompt.states.shape[1], 4
    with attached(any_family):
        shared = shared_pass(any_family, prompt, plans, KeyValueCache([s + 3 * new] * BLOCKS))
        buffers = {block: layer.keys for block, layer in shared.cache._layers.items()}
        prompts = {block: buffer[:, :, :s].clone() for block, buffer in buffers.items()}
        ways = branching(plans, shared, BLOCKS)
        flight = Branches(any_family, shared, [ways.part(branch, shared) for branch in ways.branches], new, 100)
        tokens = flight.prefill().argmax(-1)
        mine = {block: layer.keys for block, layer in flight._branch_cache._own._layers.items()}
        for step in range(new - 1):
            for block in range(BLOCKS):
                (call,) = flight._branch_cache.shared_calls(block)
                sharing = 1 + (block < 2) + (block < 4)  # of each sample
                assert call.keys.data_ptr() == buffers[block].data_ptr()
                assert call.keys.shape[2] == s + sharing * (step + 1)
            tokens = flight.step(tokens).argmax(-1)
    assert {block: len(keys) for block, keys in mine.items()} == {2: 3, 3: 3, 4: 6, 5: 6}
    for block, layer in flight._branch_cache._own._layers.items():
        assert layer.keys.data_ptr() == mine[block].data_ptr() and layer.keys.shape[2] == s + new
    for block, layer in shared.cache._layers.items():
        assert layer.keys is buffers[block]
        assert torch.equal(layer.keys[:, :, :s], prompts[block])


# ---- which branches are one ------------------------------------------------------------------------------------------
def test_branches_that_decided_the_same_are_one_and_say_so(family):
    questions = [*QUESTIONS, ask(3, "What is two plus two?")]
    found = branched(family).answer_batch(questions, Generation(max_new_tokens=4))
    same = {name: [answer.same_as for answer in answers] for name, answers in found.items()}
    assert same["vanilla"] == same["dola"] == [None] * 4
    assert same["off"] == ["vanilla"] * 4
    assert same["again"] == ["half"] * 3 + ["vanilla"]
    for name in ("half", "L1", "L4", "knockout"):
        assert same[name] == [None] * 3 + ["vanilla"], name  # without a picture nothing is masked
    assert [a.first_block for a in found["L4"]] == [4, 4, 4, BLOCKS]
    assert [a.first_block for a in found["vanilla"]] == [BLOCKS] * 4
    for name, answers in found.items():
        for answer, source in zip(answers, same[name], strict=True):
            if source is not None:
                twin = found[source][answers.index(answer)]
                assert (answer.text, answer.new_tokens) == (twin.text, twin.new_tokens)
    # A log is the variant's own, whoever computed its answer.
    assert [a.log["masked_tokens"] for a in found["off"]] == [0] * 4
    assert found["vanilla"][0].log == {}


def test_a_repetition_penalty_is_over_each_rows_own_tokens(family, monkeypatch):
    plain = branched(family).answer_batch(QUESTIONS, Generation(max_new_tokens=6))
    monkeypatch.setattr(family.model.generation_config, "repetition_penalty", 1.5)
    found = branched(family).answer_batch(QUESTIONS, Generation(max_new_tokens=6))
    for name, method in VARIANTS.items():
        engine = Engine(family, method, RunOptions(), name)
        engine.end_tokens = frozenset()
        alone = engine.answer_batch(QUESTIONS, Generation(max_new_tokens=6))
        assert [a.text for a in found[name]] == [a.text for a in alone], name
    assert any(a.text != b.text for name in VARIANTS for a, b in zip(found[name], plain[name], strict=True))


def test_one_sample_of_a_batch_may_agree_and_another_not(family):
    """As scopes do that choose other blocks for some samples."""
    scopes = {
        f"scope {a}:{b}": make("contrastive", scope=f"{a}:{b}", review_layer=4, rho=0.4)
        for a, b in ((0, 1), (1, 2), (0, 2))
    }
    questions = mixed_questions()
    found = branched(family, scopes).answer_batch(questions, Generation(max_new_tokens=4))
    chosen = {name: [a.log["pre_layer"] for a in answers] for name, answers in found.items()}
    first, second, third = scopes
    for sample in range(len(questions)):
        for name, before in ((second, [first]), (third, [first, second])):
            twins = [b for b in before if chosen[b][sample] == chosen[name][sample]]
            assert found[name][sample].same_as == (twins[0] if twins else None)
    assert len({tuple(a.same_as for a in of_sample) for of_sample in zip(*found.values(), strict=True)}) > 1


def test_steps_on_the_scores_tell_branches_apart():
    family = make_family("llava")
    variants = {
        "low": make("dola", layers="low"),
        "named": make("dola", layers="0:2"),  # what low means on six blocks
        "high": make("dola", layers="high"),
        "plain": make("vanilla"),
    }
    found = branched(family, variants).answer_batch(QUESTIONS[:1], Generation(max_new_tokens=3))
    assert {name: answers[0].same_as for name, answers in found.items()} == {
        "low": None, "named": "low", "high": None, "plain": None
    }  # fmt: skip


@dataclass(frozen=True)
class ByStates(Method):
    """Dims the picture where the last position's states that enter the edited block say so."""

    block: int
    tag: str = ""

    def plan(self, trunk):
        return Plan((self.read,), (Edit(self.block, "value", self._decide),))

    @property
    def read(self):
        return Read(self.block, "hidden")

    def _decide(self, reads, prompt):
        assert list(reads) == [self.read]
        dimmed = prompt.is_image & (reads[self.read][:, :1] > 0)  # (b, s)
        return Decision(torch.where(dimmed, 0.1, 1.0), tuple({"dimmed": n} for n in dimmed.sum(-1).tolist()))


def test_an_edit_may_rest_on_the_states_that_enter_its_own_block(family):
    variants = {"3": ByStates(3), "4": ByStates(4), "4 again": ByStates(4, "again"), "4 only": ByStates(4)}
    questions = mixed_questions()
    for some in (["3", "4", "4 again"], ["4 only"]):
        together = branched(family, {n: variants[n] for n in some}).answer_batch(questions, Generation(4))
        for name in some:
            engine = Engine(family, variants[name], RunOptions(), name)
            engine.end_tokens = frozenset()
            for mine, alone in zip(together[name], engine.answer_batch(questions, Generation(4)), strict=True):
                assert (mine.text, mine.log) == (alone.text, alone.log)
        if "4 again" in some:
            assert all(answer.same_as for answer in together["4 again"]), "decided before its branch began"
            assert len({bool(answer.log["dimmed"]) for answer in together["4"]}) == 2


@dataclass(frozen=True)
class ByItsOwn(Method):
    """Dims the picture, and then by what it reads above that once more; block 2 is read by others too."""

    def plan(self, trunk):
        return Plan((Read(2),), (Edit(1, "value", self._first), Edit(3, "value", self._second)))

    def _first(self, reads, prompt):
        return Decision(torch.where(prompt.is_image, 0.1, 1.0), ({},) * len(prompt.kinds))

    def _second(self, reads, prompt):
        return Decision(1 - reads[Read(2)], tuple({"read": row} for row in reads[Read(2)].tolist()))


def test_a_branch_reads_above_its_first_edit_itself_though_another_variant_wants_the_baselines(family):
    """`half` reads the baseline at block 2, where `own` is on its way already."""
    questions = mixed_questions()
    found = branched(family, {"half": VARIANTS["half"], "own": ByItsOwn()}).answer_batch(questions, Generation(4))
    alone = Engine(family, ByItsOwn(), RunOptions()).answer_batch(questions, Generation(4))
    for mine, its in zip(found["own"], alone, strict=True):
        assert mine.log["read"] == pytest.approx(its.log["read"], rel=1e-9, abs=1e-12)


@dataclass(frozen=True)
class Looks(Method):
    """Changes nothing, and logs what it was shown."""

    def plan(self, trunk):
        return Plan((Read(1),), observe=lambda reads, prompt: ({"shown": len(reads)},) * len(prompt.kinds))


def test_a_variant_that_observes_sees_its_own_reads_alone(family):
    found = branched(family, {"half": VARIANTS["half"], "looks": Looks()}).answer_batch(QUESTIONS, Generation(2))
    assert [answer.log for answer in found["looks"]] == [{"shown": 1}] * 3


# ---- families that add something between blocks ----------------------------------------------------------------------
class Deepstack(Llava):
    @classmethod
    def describe(cls, config):
        return replace(super().describe(config), added_after=(1, 3, 5))

    def between(self, block, states):
        return states + 0.25 * block if block in (1, 3, 5) and states.shape[1] > 1 else states


def test_what_is_added_between_blocks_is_added_to_branches_too():
    plain = make_family("llava")
    family = Deepstack(plain.model, plain.processor)
    variants = {n: VARIANTS[n] for n in ("vanilla", "L1", "L4", "half")}
    together = branched(family, variants).answer_batch(QUESTIONS, Generation(max_new_tokens=5))
    for name, method in variants.items():
        engine = Engine(family, method, RunOptions(), name)
        engine.end_tokens = frozenset()
        assert [a.text for a in engine.answer_batch(QUESTIONS, Generation(max_new_tokens=5))] == [
            a.text for a in together[name]
        ]


# ---- what is refused, and what is left behind ------------------------------------------------------------------------
def test_a_method_with_inputs_of_its_own_is_refused_by_name(family):
    with pytest.raises(OptionError, match=r"'crop' \(ViCrop\) answers inputs of its own.*Run it alone"):
        Branched(family, {"vanilla": make("vanilla"), "crop": make("vicrop", layer=2)}, RunOptions())


def test_beams_are_refused_by_name_before_anything_is_answered(family):
    front = branched(family, {"vanilla": make("vanilla")})
    requests = [Request(QUESTIONS[0], Generation()), Request(QUESTIONS[1], Generation(num_beams=2))]
    with pytest.raises(OptionError, match="num_beams=2 is not supported with several variants at a time"):
        next(front.answer(requests))
    with pytest.raises(OptionError, match="Run the variants one by one"):
        front.answer_batch(QUESTIONS[:1], Generation(num_beams=2))


def test_no_variant_and_a_trace_are_refused(family):
    with pytest.raises(OptionError, match="No variant is given"):
        Branched(family, {}, RunOptions())
    with pytest.raises(OptionError, match="trace=x.jsonl is for one method"):
        Branched(family, VARIANTS, RunOptions(trace="x.jsonl"))


def test_a_failure_names_every_document_of_its_batch(monkeypatch):
    front = branched(make_family("llava"), batch_size=2)
    monkeypatch.setattr(front, "prompt", lambda inputs: 1 / 0)
    with pytest.raises(GenerationError, match=r"variants failed at \[task toy, split val, document 1; .* document 0\]"):
        list(front.answer([Request(q, Generation()) for q in (ask(0, "?"), ask(1, "Why?"))]))


def test_nothing_is_left_after_an_exception_in_decoding(family):
    front = branched(family)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family.model.modules())

    def fail(module, args):
        if args[0].shape[1] == 1:
            raise ZeroDivisionError

    before = hooks()
    handle = family.blocks[-1].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        front.answer_batch(QUESTIONS, Generation(max_new_tokens=4))
    handle.remove()
    assert hooks() == before and family.text_config._attn_implementation == "sdpa"
    first = front.answer_batch(QUESTIONS, Generation(max_new_tokens=4))
    assert first == front.answer_batch(QUESTIONS, Generation(max_new_tokens=4))


# ---- the proof at load -----------------------------------------------------------------------------------------------
def test_every_edited_place_is_proven_once_however_many_plans_edit_it(family):
    plans = [plan_of(family, "contrastive", {**LAYERS, "rho": rho}) for rho in (0.1, 0.2, 0.3, 0.4)]
    counts = []
    for some in (plans[:1], plans):
        with passes(family) as (prompts, _, _):
            self_check(family, *some)
        counts.append(prompts)
    assert counts[0] == counts[1]


def test_the_self_check_finds_the_plan_among_several_that_does_not_reach_the_model(family, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.engine.cache.Scaling.scale", lambda *_: None)
    variants = {"half": VARIANTS["half"], "kv": make("contrastive", **LAYERS, site="kv")}
    with pytest.raises(CheckpointError, match="block 3, site kv, at full strength changes no logit"):
        Branched(family, variants, RunOptions())
