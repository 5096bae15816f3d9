"""Memory: what is counted bounds what is held, branches are split to fit, and a batch that does not fit is halved."""

import gc
from types import SimpleNamespace

import pytest
import torch
from steps import plan_of
from toys import make_family, mixed_questions
from trunks import PAPER

from lmms_ca_plugin.bench.memory import peak_of
from lmms_ca_plugin.engine import budget
from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.budget import GIB, Batch, budget_of, capacities, measured
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import GenerationError, MemoryLimitError, OptionError
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._contract import Plan, Scores

BATCH = Batch(PAPER, 2, samples=4, positions=650, new_tokens=16)
CPU = torch.device("cpu")


def make(name, **options):
    return load_method(name).from_options(options)


# ---- counting --------------------------------------------------------------------------------------------------------
def test_a_branch_at_29_of_32_keeps_three_blocks_of_its_prompt():
    """`workloads.md`: 15 variants hold about 2.4 prompts' worth of keys and values, not 15."""
    prompt = BATCH.row(0) - BATCH.row(32)
    assert prompt == 32 * 650 * 2 * 4096 * 2
    late = BATCH.row(29) - BATCH.row(32)
    assert late / prompt == 3 / 32
    assert 1 + 15 * late / prompt == pytest.approx(2.4, abs=0.02)


def test_variants_are_split_into_groups_that_fit():
    first_blocks = {f"L{n}": n for n in range(32)} | {"vanilla": 32}
    together = BATCH.together(CPU, 12 * GIB)
    groups = BATCH.groups(first_blocks, together, 12 * GIB)
    assert sorted(name for group in groups for name in group) == sorted(first_blocks)
    assert len(groups) > 1
    room = 12 * GIB - BATCH.shared(list(first_blocks.values())) - together * BATCH._passing
    needs = [4 * sum(BATCH.row(first_blocks[name]) for name in group) for group in groups]
    assert max(needs) <= room
    for needed, following in zip(needs, groups[1:], strict=False):
        assert needed + 4 * BATCH.row(first_blocks[following[0]]) > room, "a group could have held more"
    assert len(BATCH.groups(first_blocks, together, 400 * GIB)) == 1


def test_what_fits_with_no_branch_is_refused_with_the_numbers():
    with pytest.raises(
        MemoryLimitError, match=r"4 question\(s\) .* 650 tokens and 16 new tokens need .* for 'L0' alone"
    ):
        BATCH.groups({"L0": 0}, 4, GIB)


def test_prompts_pass_a_few_at_a_time_and_never_fewer_than_the_baselines():
    assert BATCH.together(torch.device("cuda"), 400 * GIB) == 16384 // 650
    assert BATCH.together(CPU, 400 * GIB) == BATCH.together(torch.device("cuda"), GIB) == 4
    assert BATCH.together(torch.device("mps"), 400 * GIB) == 4  # nobody measured it, so the careful number holds


def test_shared_caches_have_room_for_the_new_tokens_of_all_rows_that_may_share():
    family = make_family("llava")
    half = plan_of(family, "contrastive", {"scope": "0:1", "review_layer": 4})
    plans = {"vanilla": Plan(), "L2": plan_of(family, "layermask", {"layer": 2}), "half": half, "more": half}
    batch = Batch(family.trunk, 8, samples=3, positions=10, new_tokens=2)
    # vanilla, half and more; from 2 on L2 too, if it masks nothing; from 4 on all three, but as one
    assert capacities(plans, [list(plans)], batch) == [18, 18, 18, 18, 14, 14]
    assert capacities(plans, [["L2"], ["half", "more"], ["vanilla"]], batch) == [14, 14, 14, 14, 12, 12]
    scored = {"a": Plan(edits=half.edits, rescore=lambda *given: Scores(*given)), "b": half}
    assert capacities(scored, [["a", "b"]], batch) == [14] * 6


# ---- measuring -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wide():
    """Real proportions at a small width: 144 image tokens, float32."""
    return make_family("llava", image_size=168, hidden_size=64, num_blocks=8, dtype=torch.float32)


VARIANTS = {f"L{n}": make("layermask", layer=n) for n in range(8)} | {
    "knockout": make("layermask", layer=5, mode="knockout")
}


@pytest.mark.parametrize("split", [False, True])
def test_what_is_held_is_no_more_than_what_is_counted(wide, split):
    """And not much less either: an empty promise would be met by refusing everything."""
    front = Branched(wide, VARIANTS, RunOptions())
    questions, generation = mixed_questions()[:4], Generation(max_new_tokens=8)
    positions = wide.encode(questions).input_ids.shape[1]
    batch = Batch(wide.trunk, 4, 4, positions, 8)
    first_blocks = {name: plan.first_block(8) for name, plan in front.plans.items()}
    together = batch.together(CPU, GIB)
    needed = batch.shared(list(first_blocks.values())) + together * batch._passing
    needed += 4 * sum(map(batch.row, first_blocks.values())) // (3 if split else 1)
    front.memory = needed
    assert len(batch.groups(first_blocks, together, needed)) == (4 if split else 1)
    front.answer_batch(questions, generation)
    gc.collect()
    peak = peak_of(lambda: front.answer_batch(questions, generation), CPU, 0).working
    assert 0.6 * needed < peak <= needed


def test_the_default_is_measured(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(budget.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    assert budget_of(family, None) == measured({CPU: 6}) == 2_048_000
    assert budget_of(family, 1.5) == 1.5 * GIB
    with pytest.raises(OptionError, match=r"memory_gib=0 is not allowed. Allowed: above 0, or leave it out"):
        budget_of(family, 0)


def test_on_several_gpus_each_must_have_room_for_what_its_blocks_keep(monkeypatch):
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    free = {first: (700, 9000), second: (300, 9000)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", free.get)
    monkeypatch.setattr(torch.cuda, "memory_reserved", {first: 500, second: 0}.get)
    monkeypatch.setattr(torch.cuda, "memory_allocated", {first: 200, second: 0}.get)
    assert measured({first: 32}) == 900  # 90 % of 700 and of the 300 that PyTorch holds unused
    assert measured({first: 16, second: 16}) == 540  # the second has 300, for half of all blocks
    assert measured({first: 30, second: 2}) == int(0.9 * 1000 * 32 / 30)
    assert measured({first: 16, CPU: 16}) == measured({CPU: 32})


# ---- halving ---------------------------------------------------------------------------------------------------------
def test_a_batch_that_the_budget_does_not_hold_is_halved_and_said_once(wide, capsys):
    variants = {name: VARIANTS[name] for name in ("L0", "L4")}
    front = Branched(wide, variants, RunOptions(batch_size=4), is_main=False)
    requests = [Request(question, Generation(max_new_tokens=3)) for question in mixed_questions()]
    whole = dict(_by_index(front.answer(requests)))
    capsys.readouterr()
    positions = wide.encode([r.question for r in requests]).input_ids.shape[1]
    alone = Batch(wide.trunk, 4, 1, positions, 3)
    front.memory = 2 * (alone.shared([0, 4]) + alone.row(0) + 2 * alone._passing)
    halved = dict(_by_index(front.answer(requests)))
    assert halved == whole
    said = capsys.readouterr().err
    assert said.count("does not fit and is halved") == 1
    assert "variants: a batch of 4 does not fit and is halved. 4 question(s) with prompts of" in said


def _by_index(batches):
    for indices, answers in batches:
        for place, index in enumerate(indices):
            yield index, {name: of_variant[place] for name, of_variant in answers.items()}


def test_a_question_that_does_not_fit_alone_is_an_error_that_names_it(wide):
    front = Branched(wide, VARIANTS, RunOptions(batch_size=4), memory_gib=1e-4)
    with pytest.raises(GenerationError, match=r"document 0\]: MemoryLimitError: 1 question\(s\) .*memory_gib"):
        list(front.answer([Request(mixed_questions()[0], Generation())]))


REFUSALS = [torch.cuda.OutOfMemoryError("out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["pytorch", "cublas"])
@pytest.mark.parametrize("front", ["engine", "branched"])
def test_a_batch_that_a_gpu_refuses_is_halved_and_later_ones_are_dealt_smaller(front, refusal, monkeypatch, capsys):
    family = make_family("llava")
    variants = {"vanilla": make("vanilla")}
    options = RunOptions(batch_size=4)
    made = Engine(family, variants["vanilla"], options) if front == "engine" else Branched(family, variants, options)
    requests = [Request(question, Generation(max_new_tokens=3)) for question in mixed_questions()]
    whole = list(made.answer(requests))
    answer, tried = made._answer_together, []

    def on_a_small_gpu(questions, generation, inputs):
        tried.append(len(questions))
        if len(questions) > 2:
            raise refusal
        return answer(questions, generation, inputs)

    monkeypatch.setattr(made, "_answer_together", on_a_small_gpu)
    capsys.readouterr()
    assert list(made.answer(requests)) == whole
    assert tried == [4, 2, 2, 2, 2]
    assert capsys.readouterr().err.count(f"a batch of 4 does not fit and is halved. {refusal}") == 1


def test_a_batch_that_the_budget_does_not_hold_says_nothing_of_later_ones(monkeypatch):
    """Its prompts may be longer than theirs; to count is free, so each batch is tried whole."""
    family = make_family("llava")
    made, tried = Branched(family, {"vanilla": make("vanilla")}, RunOptions(batch_size=4)), []
    answer = made._answer_together

    def on_a_small_budget(questions, generation, inputs):
        tried.append(len(questions))
        if tried == [4]:
            raise MemoryLimitError("too long")
        return answer(questions, generation, inputs)

    monkeypatch.setattr(made, "_answer_together", on_a_small_budget)
    list(made.answer([Request(question, Generation(max_new_tokens=1)) for question in mixed_questions()]))
    assert tried == [4, 2, 2, 4]


def test_another_failure_is_not_taken_for_too_little_memory(monkeypatch):
    made, tried = Engine(make_family("llava"), make("vanilla"), RunOptions(batch_size=4)), []

    def fails(questions, generation, inputs):
        tried.append(len(questions))
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(made, "_answer_together", fails)
    with pytest.raises(RuntimeError, match="device-side assert"):
        made.answer_batch(mixed_questions()[:4], Generation())
    assert tried == [4]


def test_tensors_of_a_pass_that_failed_are_let_go_before_the_next(monkeypatch):
    made = Engine(make_family("llava"), make("vanilla"), RunOptions(batch_size=2))
    alive = []

    class Held(SimpleNamespace):
        def __del__(self):
            alive.remove(self.name)

    def fails(questions, generation, inputs):
        assert not alive
        held = Held(name=len(questions))
        alive.append(held.name)
        if len(questions) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return [None]

    monkeypatch.setattr(made, "_answer_together", fails)
    assert made.answer_batch(mixed_questions()[:2], Generation()) == [None, None]
