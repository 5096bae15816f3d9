"""The bench of methods: what it concludes, what it records, and that it measures what it says. No time is asserted."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from toys import make_family
from typer.testing import CliRunner

from lmms_ca_plugin.bench import models, targets
from lmms_ca_plugin.bench.estimate import Estimate, overall
from lmms_ca_plugin.bench.floor import decoding_work, picture_work, prompt_work, two_picture_floor
from lmms_ca_plugin.bench.memory import peak_of
from lmms_ca_plugin.bench.methods import BenchOptions, Cost, measure
from lmms_ca_plugin.bench.pairs import Pair
from lmms_ca_plugin.bench.report import as_table, remarks
from lmms_ca_plugin.bench.sides import NaiveSide, make_questions
from lmms_ca_plugin.cli import build
from lmms_ca_plugin.errors import LmmsCaError, OptionError
from lmms_ca_plugin.families._contract import Message
from lmms_ca_plugin.methods import method_names
from lmms_ca_plugin.tiny import TinySettings

CPU = torch.device("cpu")
# All 32 blocks, so that the paper's defaults stand; 64 image tokens, so that var finds sinks.
SETTINGS = TinySettings("llava", hidden_size=32, image_size=112)


@pytest.fixture(scope="module")
def family():
    return models.small_family(SETTINGS)


@pytest.fixture(scope="module")
def costs(family):
    return {c.name: c for c in measure(family, BenchOptions(pairs=1, new_tokens=3))}


# ---- what is concluded -----------------------------------------------------------------------------------------------
def test_nine_sorted_ratios_give_the_second_and_the_eighth():
    estimate = Estimate.of_noisy([1.09, 1.01, 1.05, 1.02, 1.08, 1.03, 1.07, 1.04, 1.06])
    assert (estimate.median, estimate.low, estimate.high) == (1.05, 1.02, 1.08)


@pytest.mark.parametrize(
    ("target", "verdict"),
    [(1.01, "missed"), (1.02, "undecided"), (1.05, "undecided"), (1.08, "undecided"), (1.081, "met")],
)
def test_a_target_inside_the_interval_is_undecided(target, verdict):
    assert Estimate.of_noisy([1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09]).verdict(target) == verdict


def test_eight_pairs_decide_nothing_however_clear():
    estimate = Estimate.of_noisy([1.0] * 8)
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.verdict(2.0) == "undecided"
    assert Estimate.of_noisy([1.0] * 9).verdict(2.0) == "met"


def test_repeated_measures_give_their_range_and_one_alone_gives_none():
    assert Estimate.of_repeatable([1.01, 1.01]).verdict(1.02) == "met"
    assert Estimate.of_repeatable([1.01, 1.03]).verdict(1.02) == "undecided"
    assert Estimate.of_repeatable([1.03, 1.03]).verdict(1.02) == "missed"
    assert Estimate.of_repeatable([1.01]).verdict(1.02) == "undecided"


def test_one_missed_target_is_a_miss_and_one_undecided_leaves_all_undecided():
    assert overall(["met", "missed", "undecided"]) == "missed"
    assert overall(["met", "undecided"]) == "undecided"
    assert overall(["met", "met"]) == "met"
    assert overall([]) is None


def test_a_cost_divides_the_method_by_vanilla_and_judges_both_targets(costs):
    pairs = tuple(Pair(2.0, 2.1, bool(i % 2)) for i in range(9))
    cost = replace(costs["layermask"], pairs=pairs)
    assert cost.time.median == pytest.approx(1.05)
    assert cost.verdicts["time"] == "missed"  # its target is 1.03
    assert cost.verdict == "missed"
    assert "1.03 missed" in _text(as_table([cost], BenchOptions(pairs=9)))


# ---- memory ----------------------------------------------------------------------------------------------------------
def test_the_meter_sees_what_is_alive_at_once_and_nothing_that_was_there_before():
    before = torch.zeros(1_000_000)

    def call():
        first = torch.empty(1000, 250)  # 1,000,000 bytes
        second = first + before[0]  # and as many again
        del first
        return second, torch.empty(500, 250)  # 500,000 more, after the first was given back

    assert peak_of(call, CPU, held=7).working == pytest.approx(2_000_000, abs=1000)
    assert peak_of(call, CPU, held=7).total == pytest.approx(2_000_007, abs=1000)


def test_the_meter_sees_scratch_inside_a_kernel():
    values = torch.rand(250_000)
    sort = peak_of(lambda: torch.sort(values, stable=True), CPU, 0).working
    assert sort >= 250_000 * (4 + 8)  # values and indices at least


# ---- a run -----------------------------------------------------------------------------------------------------------
def test_every_method_and_the_naive_way_are_measured_in_pairs(costs):
    assert list(costs) == [*method_names(), "naive"]
    for cost in costs.values():
        assert len(cost.pairs) == 1
        assert all(pair.base > 0 and pair.own > 0 for pair in cost.pairs)
        assert len(set(cost.peaks)) == 1, f"{cost.name}: allocations do not repeat"


def test_the_naive_way_returns_every_weight_and_vanilla_against_itself_is_one(costs, family):
    side = NaiveSide(family, new_tokens=2)
    (question,) = make_questions(1, seed=0)
    s = family.encode([question]).input_ids.shape[1]
    (log,) = side.answer([question])
    assert log["attention_weights"] == 32 * family.trunk.num_heads * (s * s + s + 1)
    assert family.text_config._attn_implementation == "sdpa"
    assert costs["naive"].memory("working").median > 1.5
    assert costs["vanilla"].memory("working").median == 1.0


def test_methods_do_their_work_under_the_options_of_the_bench(costs):
    assert costs["contrastive"].did == "masked 12 of 64 image tokens at block 29"
    assert costs["layermask"].did == "zeroed 64 image tokens at block 16"
    assert costs["dola"].did.count(",") == 2  # three new tokens
    assert "of 29 edited blocks" in costs["var"].did
    assert "tau=1.0" in "\n".join(remarks(list(costs.values())))


def test_a_method_that_does_nothing_ends_the_bench(family, monkeypatch):
    idle = replace(targets.CASES["contrastive"], options={"rho": 0})
    monkeypatch.setattr("lmms_ca_plugin.bench.methods.CASES", {**targets.CASES, "contrastive": idle})
    with pytest.raises(LmmsCaError, match="contrastive did nothing on the bench's questions"):
        measure(family, BenchOptions(methods=("contrastive",), pairs=1))


def test_a_method_without_a_row_is_measured_without_a_target(family, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.bench.methods.CASES", {})
    cost: Cost = measure(family, BenchOptions(methods=("dola",), pairs=1, new_tokens=1))[0]
    assert (cost.name, cost.verdict, cost.verdicts) == ("dola", None, {})


def test_every_side_decodes_as_many_tokens_as_asked(family, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.bench.sides.frozenset", lambda: frozenset(range(10_000)), raising=False)
    with pytest.raises(LmmsCaError, match="vanilla decoded 0 tokens in place of 3"):
        measure(family, BenchOptions(methods=("vanilla",), pairs=1, new_tokens=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("contrastiv",)}, "Unknown method 'contrastiv'. Did you mean 'contrastive'?"),
        ({"methods": ("dola", "dola")}, "methods=dola,dola names none, or one twice."),
        ({"pairs": 0}, "pairs=0 is not allowed. Allowed: 1 and more."),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(OptionError) as caught:
        BenchOptions(**options)
    assert message in str(caught.value)


def test_options_that_do_not_fit_name_the_method():
    with pytest.raises(OptionError, match="contrastive cannot be measured: The paper's blocks are known only for"):
        measure(make_family("llava"), BenchOptions(methods=("contrastive",), pairs=1))


# ---- the floor -------------------------------------------------------------------------------------------------------
def test_the_floor_counts_two_pictures_and_the_map_passes(family):
    (question,) = make_questions(1, seed=0)
    ids = family.encode([question]).input_ids[0]
    start = int((ids == family.trunk.image_token_id).nonzero()[-1]) + 1
    general = len(family.processor.tokenizer("Write a general description of the image.")["input_ids"])
    asked = len(family.processor.tokenizer(question.read()[0].text)["input_ids"])
    floor = two_picture_floor(family, [question], [{"map_layer": 14}], new_tokens=1)
    assert (floor.vanilla.pictures, floor.method.pictures) == (1, 2)
    assert floor.vanilla.block_tokens == 32 * len(ids)
    longer = len(ids) + 64 + 1  # the crop and the newline behind it
    maps = start + (len(ids) - start) + (len(ids) - start - asked + general)
    assert floor.method.block_tokens == pytest.approx(32 * longer + 15 * maps, abs=15)  # a piece may join its neighbour
    assert 1.5 < floor.ratio < 3


def test_the_maps_block_is_asked_for_keys_and_two_queries(family):
    (question,) = make_questions(1, seed=0)
    message = question.read()[0]

    def length(text, pictures):
        asked = Message("user", text, message.pictures * pictures)
        return family.encode([replace(question, conversation=lambda: (asked,))]).input_ids.shape[1]

    asked, general = length(message.text, 1), length("Write a general description of the image.", 1)
    longer = length(message.text, 2)
    floor = two_picture_floor(family, [question], [{"map_layer": 0}], new_tokens=1)
    answer = prompt_work(family, longer) + decoding_work(family, longer, 1)
    maps = floor.method - (picture_work(family) + picture_work(family) + answer)
    start = int((family.encode([question]).input_ids[0] == family.trunk.image_token_id).nonzero()[-1]) + 1
    attention = family.blocks[0].self_attn
    keys = attention.k_proj.weight.numel() * (asked + general - start)
    assert maps.operations == keys + 2 * attention.q_proj.weight.numel() + 32 * (asked + general)


def test_a_second_new_token_passes_every_block_once(family):
    questions = make_questions(1, seed=0)
    one, two = (two_picture_floor(family, questions, [{"map_layer": 3}], n).vanilla for n in (1, 2))
    assert two.block_tokens - one.block_tokens == 32


# ---- models and the command ------------------------------------------------------------------------------------------
def test_the_true_shape_is_that_of_the_7b():
    model = models.true_shape(torch.device("meta"), seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(7.06e9, rel=0.001)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device=gpu is no device of PyTorch. Allowed: cpu, cuda, cuda:<n>"),
        ("meta", "device=meta is not supported. Allowed: cpu, cuda, cuda:<n>."),
        ("cuda:99", "device=cuda:99: PyTorch finds"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(device, message):
    with pytest.raises(OptionError) as caught:
        models.build_family(device, seed=0)
    assert message in str(caught.value)


def test_the_command_writes_everything_without_the_harness(family, monkeypatch, tmp_path):
    for package in ("lmms_eval", "datasets", "evaluate"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    monkeypatch.setattr(models, "build_family", lambda device, seed: family)
    file = tmp_path / "costs.json"
    arguments = ["bench", "methods", "--pairs", "1", "--methods", "layermask,vanilla", "--threads", "1"]
    result = CliRunner().invoke(build(), [*arguments, "--new-tokens", "2", "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1.03 undecided" in result.stdout and "naive" in result.stdout  # whole: a pipe has no width
    record = json.loads(file.read_text())
    assert record["options"] == {
        "methods": ["layermask", "vanilla"],
        "pairs": 1,
        "batch_size": 1,
        "new_tokens": 2,
        "seed": 0,
    }
    assert record["machine"]["device"] == "cpu" and record["machine"]["threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert record["model"]["num_blocks"] == 32 and record["model"]["image_tokens"] == 64
    assert list(record["costs"]) == ["layermask", "vanilla", "naive"]
    cost = record["costs"]["layermask"]
    assert cost["parameters"] == {"layer": 16, "mode": "zero"}
    assert cost["targets"] == {"time": 1.03, "memory": 1.02}
    ratios = [pair["own"] / pair["base"] for pair in cost["pairs"]]
    assert cost["time"]["ratios"] == ratios
    assert cost["verdicts"]["time"] == "undecided"  # one pair decides nothing
    assert len(cost["peaks"]) == len(cost["vanilla_peaks"]) == 2


def test_a_file_whose_folder_is_missing_is_refused_before_anything_is_measured(tmp_path):
    result = CliRunner().invoke(build(), ["bench", "methods", "--json", str(tmp_path / "none" / "costs.json")])
    assert "there is no folder" in str(result.exception)


def _text(table) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(table)
    return captured.get()
