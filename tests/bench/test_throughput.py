"""The bench of throughput: what is compared, that all sides do the same, and what is concluded. No time is asserted."""

import json
import sys

import pytest
from typer.testing import CliRunner

from lmms_ca_plugin.bench import models
from lmms_ca_plugin.bench.estimate import Claim, Estimate
from lmms_ca_plugin.bench.memory import Peak
from lmms_ca_plugin.bench.pairs import Pair
from lmms_ca_plugin.bench.sides import as_files, make_questions
from lmms_ca_plugin.bench.throughput import Speed, Throughput, ThroughputOptions
from lmms_ca_plugin.cli import build
from lmms_ca_plugin.errors import LmmsCaError, OptionError
from lmms_ca_plugin.harness.peer import LlavaHf
from lmms_ca_plugin.tiny import TinySettings


@pytest.fixture(scope="module")
def family():
    # `generate` bars the end token until enough is decoded; the engine goes on after it, and a text does not show it.
    return models.small_family(TinySettings("llava", num_blocks=4, hidden_size=32, image_size=56, eos_gain=0))


def run(family, monkeypatch, tmp_path, *arguments):
    monkeypatch.setattr(models, "build_family", lambda device, seed: family)
    file = tmp_path / "speeds.json"
    given = ["bench", "throughput", "--pairs", "1", "--new-tokens", "3", "--threads", "1", "--json", str(file)]
    result = CliRunner().invoke(build(), [*given, *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, json.loads(file.read_text())


def test_vanilla_is_measured_against_llava_hf_and_generate_on_the_same_tokens(family, monkeypatch, tmp_path):
    _, record = run(family, monkeypatch, tmp_path, "--batch-sizes", "1,2")
    assert record["base"]["name"] == "llava_hf, batch 1"
    assert list(record["speeds"]) == ["vanilla, batch 1", "vanilla, batch 2", "generate, batch 1"]
    for speed in record["speeds"].values():
        assert speed["same"] == 4, "prompts, pixels or weights differ"
        assert len(speed["pairs"]) == 1 and len(speed["peaks"]) == 2
    two = record["speeds"]["vanilla, batch 2"]
    assert all(0 < waiting < 1 for waiting in two["waiting"]) and len(two["encoding"]) == 1
    claims = {claim["what"]: claim for claim in record["claims"]}
    assert list(claims) == [f"time of {n}, batch 1, relative to llava_hf, batch 1" for n in ("vanilla", "generate")]
    assert {claim["verdict"] for claim in claims.values()} == {"undecided"}  # one pair decides nothing


def test_without_the_harness_generate_is_the_base(family, monkeypatch, tmp_path):
    for package in ("lmms_eval", "datasets", "evaluate"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    printed, record = run(family, monkeypatch, tmp_path, "--batch-sizes", "1", "--questions", "2")
    assert record["base"]["name"] == "generate, batch 1" and list(record["speeds"]) == ["vanilla, batch 1"]
    assert record["options"]["questions"] == 2 and record["bench"] == "throughput"
    assert "waiting" in printed and "undecided" in printed
    refused = CliRunner().invoke(build(), ["bench", "throughput", "--against", "llava_hf"])
    assert "against=llava_hf needs lmms-eval, which is not installed" in str(refused.exception)


def test_an_answer_that_llava_hf_hides_a_failure_behind_ends_the_bench(family):
    questions = as_files(make_questions(1, seed=0))
    side = LlavaHf(family, questions, new_tokens=2)
    assert len(side.texts(questions)) == 1

    def fails(**given):
        raise RuntimeError("out of memory")

    side._generate = fails
    with pytest.raises(LmmsCaError, match=r"llava_hf decoded \[\] tokens in place of 2 for each of 1 questions"):
        side.texts(questions)


def test_a_llava_hf_that_cannot_be_made_is_named(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval.models.simple", None)
    with pytest.raises(LmmsCaError, match="The harness's llava_hf cannot be made on cpu: .*Give --against generate"):
        LlavaHf(family, make_questions(1, seed=0), new_tokens=2)
    assert "decord" not in sys.modules


# ---- what is concluded -----------------------------------------------------------------------------------------------
def speed(name, batch_size, ratio, encoding=(0.1,)):
    pairs = (Pair(1.0, ratio, True),) * 9
    return Speed(name, batch_size, pairs, (Peak(0, 1),), 8, encoding, encoding)


def test_on_a_gpu_the_best_batch_size_must_be_six_times_as_fast():
    sides = (speed("vanilla, batch 1", 1, 0.9), speed("vanilla, batch 8", 8, 0.2), speed("vanilla, batch 32", 32, 0.15))
    other = speed("generate, batch 1", 1, 1.02, ())
    base = speed("llava_hf, batch 1", 1, 1.0, ())
    found = Throughput(base, (*sides, other), 64, on_gpu=True)
    assert [(c.what.split(", rel")[0], c.verdict) for c in found.claims] == [
        ("time of vanilla, batch 1", "met"),
        ("time of vanilla, batch 32, the best", "met"),
        ("time of generate, batch 1", "met"),
    ]
    slow = Throughput(base, (*sides[:2], speed("generate, batch 1", 1, 0.9, ())), 64, on_gpu=True)
    assert [claim.verdict for claim in slow.claims] == ["met", "missed", "missed"]
    assert len(Throughput(base, (*sides, other), 64, on_gpu=False).claims) == 2


def test_a_claim_with_two_ends_needs_both():
    estimate = Estimate.of_noisy([0.96, 0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04])
    assert Claim("", estimate, 1.05, 0.95).verdict == "met"
    assert Claim("", estimate, 1.05, 0.98).verdict == "undecided"
    assert Claim("", estimate, 1.05, 1.04).verdict == "missed"
    assert Claim("", estimate.over(2), 0.52).verdict == "met"
    assert estimate.over(2).low == pytest.approx(0.485)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": (2, 4)}, "batch_sizes=2,4 is not allowed. Allowed: whole numbers, each once, 1 among them."),
        ({"questions": 7}, "questions=7 is not allowed with batch_sizes=1,2,4. Allowed: 8 and more"),
        ({"new_tokens": 0}, "new_tokens=0 is not allowed. Allowed: 1 and more."),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(OptionError) as caught:
        ThroughputOptions(**options)
    assert message in str(caught.value)


def test_batch_sizes_are_whole_numbers():
    result = CliRunner().invoke(build(), ["bench", "throughput", "--batch-sizes", "1,two"])
    assert "batch_sizes=1,two is not allowed" in str(result.exception)
