"""The entries inside the harness: its own tasks, its own evaluation, and the traps on the way."""

import copy
import io
import json
import subprocess
import sys

import pytest
import qwens
from lmms_eval.api.instance import Instance
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.models import MODEL_REGISTRY_V2
from loguru import logger
from PIL import Image
from toys import photo

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness import entries
from lmms_ca_plugin.harness.record import over_processes
from lmms_ca_plugin.methods import method_entries

SIX = ("gqa", "vqav2_val", "ok_vqa_val2014", "vizwiz_vqa_val", "textvqa_val", "docvqa_val")
LAYERS = {"review_layer": 4, "scope": "0:1:2"}


@pytest.fixture
def log():
    lines = io.StringIO()
    sink = logger.add(lines, format="{message}", level="ERROR")
    yield lines
    logger.remove(sink)


# ---- registration ---------------------------------------------------------------------------------------------------
def test_the_harness_knows_every_method_under_both_names():
    names = MODEL_REGISTRY_V2.list_model_names()
    for entry in method_entries():
        assert {f"llava_{entry.name}", f"mllm_{entry.name}"} <= set(names)
        assert MODEL_REGISTRY_V2.get_model_class(f"llava_{entry.name}").entry == entry
        assert MODEL_REGISTRY_V2.get_model_class(f"mllm_{entry.name}", force_simple=True).is_simple
    assert {"llava_layermask_L0", "llava_layermask_L95"} <= set(names) and "llava_layermask_L96" not in names


def test_the_manifests_import_fast_and_without_torch():
    code = (
        "import time, sys; start = time.process_time(); import lmms_ca_plugin.harness.manifests; "
        "print(time.process_time() - start, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    measured = [run.stdout.split() for run in runs]
    assert all(heavy == ["False", "False"] for _, *heavy in measured)
    assert min(float(seconds) for seconds, *_ in measured) < 0.1  # of the processor: a busy machine is no matter


# ---- the six tasks --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("entry", "options"), [("Chat_vanilla", {}), ("Chat_contrastive", {**LAYERS, "rho": 0.5})])
def test_the_harness_scores_its_six_tasks(make, evaluate, entry, options):
    results = evaluate(make(entry, batch_size=4, **options), SIX)
    for task in SIX:
        metric = "anls" if task == "docvqa_val" else "exact_match"
        assert 0 <= results["results"][task][f"{metric},none"] <= 1
        assert results["n-samples"][task]["effective"] == len(results["samples"][task]) >= 10
        for sample in results["samples"][task]:
            (counts,) = sample["token_counts"]
            assert counts["input_tokens"] > 16 and 0 <= counts["output_tokens"] <= (32 if task == "docvqa_val" else 16)


@pytest.mark.parametrize("form", ["Chat", "Simple"])
def test_every_request_gets_its_own_tasks_picture(make, evaluate, form, tmp_path):
    """At batch 8 over tasks that share their settings, the answers are those of each question on its own."""
    together = evaluate(make(f"{form}_vanilla", batch_size=8), ("textvqa_val", "ok_vqa_val2014"))["samples"]
    alone = make(f"{form}_vanilla", batch_size=1)
    for task in together:
        one = evaluate(alone, (task,))["samples"][task]
        answers = [[s["filtered_resps"] for s in sorted(x, key=lambda s: s["doc_id"])] for x in (together[task], one)]
        assert answers[0] == answers[1]
        assert len({str(a) for a in answers[0]}) > 2


def test_chat_and_simple_form_answer_alike(make, evaluate):
    answers = [
        [s["filtered_resps"] for s in evaluate(make(name, batch_size=4), ("gqa",))["samples"]["gqa"]]
        for name in ("Chat_vanilla", "Simple_vanilla")
    ]
    assert answers[0] == answers[1]


def test_a_qwen_is_asked_as_its_processor_says_up_to_a_bound(make, evaluate, tmp_path):
    for part in qwens.build("qwen2_5_vl", num_blocks=4, hidden_size=32, eos_gain=0):
        part.save_pretrained(tmp_path / "qwen")
    options = {"review_layer": 3, "scope": "0:1", "max_pixels": 40_000, "trace": str(tmp_path / "trace.jsonl")}
    entry = make("Chat_contrastive", pretrained=str(tmp_path / "qwen"), batch_size=4, **options)
    results = evaluate(entry, ("gqa", "docvqa_val"))
    (record,) = results["config"]["batch_sizes"]
    assert (record["model_type"], record["conversation"], record["max_pixels"]) == ("qwen2_5_vl", "processor", 40_000)
    traced = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(traced) == record["samples"] == sum(map(len, results["samples"].values()))
    assert all(80 < line["image_tokens"] <= 100 for line in traced), "cells of 20 x 20 pixels, of larger pictures"
    assert all(line["masked_tokens"] == line["image_tokens"] // 5 for line in traced)


def test_the_result_file_records_every_setting(make, evaluate):
    results = evaluate(make("Chat_contrastive", batch_size=4, **LAYERS, site="kv", seed=3), ("gqa",))
    (record,) = results["config"]["batch_sizes"]
    json.dumps(record)
    assert record["entry"] == "contrastive" and record["parameters"]["site"] == "kv"
    assert record["parameters"]["rho"] == 0.2, "defaults are recorded too"
    assert (record["seed"], record["batch_size"], record["dtype"], record["device"]) == (3, 4, "float32", "cpu")
    assert (record["conversation"], record["image_aspect_ratio"]) == ("vicuna_v1", "pad")
    assert (record["max_pixels"], record["repetition_penalty"]) == (None, 1)
    assert set(record["versions"]) == {"plugin", "lmms_eval", "transformers", "torch"}
    assert record["samples"] == 15 and record["seconds"] > 0 and record["peak_memory_gib"] is None
    assert record["world_size"] == 1


@pytest.mark.parametrize(("peaks", "peak"), [((None, None), None), ((2.0, 3.0), 5.0)])
def test_the_record_is_of_all_processes(monkeypatch, peaks, peak):
    each = [
        {"seconds": seconds, "samples": samples, "peak_memory_gib": memory}
        for seconds, samples, memory in zip((4.0, 7.0), (12, 10), peaks, strict=True)
    ]

    def gather(everyone, own):
        assert own == each[0]
        everyone[:] = each

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    assert over_processes(each[0]) == {"world_size": 2, "seconds": 7.0, "samples": 22, "peak_memory_gib": peak}


def test_processes_meet_once_also_where_one_is_asked_nothing(make, monkeypatch):
    """The harness skips generate_until where its cache holds every answer; a gather in there would wait for ever."""
    met = []
    monkeypatch.setattr(entries, "over_processes", lambda own: met.append(own) or own)
    entry = ready(make())
    entry.generate_until([request("Chat", photo("cat", 50, 50))])
    entry.generate_until([request("Chat", photo("cat", 50, 50), doc_id=1)])
    assert not met
    entry.clean()
    idle = make()
    idle.clean()
    assert [own["samples"] for own in met] == [2, 0]
    assert entry.batch_sizes["lmms_ca"]["samples"] == 2 and idle.batch_sizes["lmms_ca"]["seconds"] == 0


@pytest.mark.parametrize(("typed", "written"), [("t.jsonl", ["t.jsonl.rank1"]), ("None", [])])
def test_each_process_has_a_trace_of_its_own(make, monkeypatch, tmp_path, typed, written):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    make(trace=typed)
    assert [file.name for file in tmp_path.iterdir()] == written


def test_the_trace_has_a_line_per_sample(make, evaluate, tmp_path):
    file = tmp_path / "trace.jsonl"
    results = evaluate(make("Chat_contrastive", batch_size=4, **LAYERS, trace=str(file)), ("gqa", "docvqa_val"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    answered = {(task, s["doc_id"]): s["filtered_resps"][0] for task, ss in results["samples"].items() for s in ss}
    assert {(r["task"], r["doc_id"]): r["answer"] for r in records} == answered
    for record in records:
        assert record["pre_layer"] in (0, 1, 2) and set(record["distances"]) == {"0", "1", "2"}
        assert (record["eligible_tokens"], record["masked_tokens"], record["image_tokens"]) == (16, 3, 16)
        assert record["masked_share"] == 3 / 16 and record["prompt_tokens"] > 16
        assert record["parameters"]["review_layer"] == 4


# ---- requests by hand -----------------------------------------------------------------------------------------------
def request(form, picture, text="What is this?", doc_id=0, context=None, **kwargs):
    kwargs = {"until": ["\n\n"], "max_new_tokens": 4, **kwargs}
    if form == "Chat":
        content = [{"type": "image", "url": picture}, {"type": "text", "text": text}]
        arguments = (context or text, lambda doc: [{"role": "user", "content": content}], kwargs, doc_id, "toy", "val")
    else:
        arguments = (context or text, kwargs, lambda doc: [picture], doc_id, "toy", "val")
    return Instance("generate_until", arguments, 0, metadata={"task": "toy", "doc_id": doc_id, "repeats": 1})


def ready(entry):
    entry.task_dict = {"toy": {"val": [{}] * 8}}
    return entry


@pytest.mark.parametrize("form", ["Chat", "Simple"])
def test_generation_kwargs_are_left_as_they_are(make, form):
    requests = [request(form, photo("cat", 50, 50)), request(form, photo("cat", 50, 50), doc_id=1, max_new_tokens=2)]
    index = 2 if form == "Chat" else 1
    before = copy.deepcopy([r.args[index] for r in requests])
    answers = ready(make(f"{form}_vanilla")).generate_until(requests)
    assert [r.args[index] for r in requests] == before
    assert [a.token_counts.output_tokens <= n for a, n in zip(answers, (4, 2), strict=True)] == [True, True]


def test_padding_requests_are_not_answered(make, monkeypatch):
    requests = [request("Chat", photo("cat", 50, 50)), request("Chat", photo("cat", 50, 50), doc_id=1)]
    requests[1].metadata["__padding_only__"] = True
    asked = []
    entry = ready(make())
    answer = entry.engine.answer
    monkeypatch.setattr(entry.engine, "answer", lambda asking: asked.extend(asking) or answer(asking))
    results = entry.generate_until(requests)
    assert len(asked) == 1 and results[1].text == "" and results[0].token_counts is not None


def test_repeats_are_draws_of_their_own_and_the_first_is_that_of_a_run_without(make):
    """The harness hands on one request as often as it is to be repeated."""
    hot = [request("Chat", photo("cat", 50, 50), doc_id=i, temperature=1.0, until=[], max_new_tokens=8) for i in (0, 1)]
    entry = ready(make(batch_size=4))
    once = [answer.text for answer in entry.generate_until(hot)]
    repeated = [answer.text for answer in entry.generate_until([hot[0]] * 3 + [hot[1]] * 3)]
    assert [repeated[0], repeated[3]] == once
    assert len(set(repeated[:3])) == len(set(repeated[3:])) == 3


def half_a_picture():
    whole = io.BytesIO()
    photo("cat", 200, 150).save(whole, "JPEG")
    return Image.open(io.BytesIO(whole.getvalue()[: len(whole.getvalue()) // 2]))


FAILURES = {
    "an empty question": (
        lambda form: request(form, photo("cat", 50, 50), " ", 5),
        "document 5: the question is empty",
    ),
    "the placeholder in the text": (
        lambda form: request(form, photo("cat", 50, 50), "What is <image>?", 2),
        "document 2: the text contains the picture placeholder '<image>'",
    ),
    "half a picture": (lambda form: request(form, half_a_picture(), doc_id=3), "document 3: cannot be read: OSError"),
    "no picture at all": (lambda form: request(form, 7), "document 0: cannot be read: InputError: it shows a int"),
    "too many new tokens": (
        lambda form: request(form, photo("cat", 50, 50), max_new_tokens=9000),
        "max_new_tokens=9000 do not fit the language model's max_position_embeddings=4096",
    ),
    "an unknown setting": (
        lambda form: request(form, photo("cat", 50, 50), max_tokens=9),
        "task toy: Unknown generation setting 'max_tokens'. Did you mean 'max_new_tokens'?",
    ),
}


@pytest.mark.parametrize("form", ["Chat", "Simple"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_ends_the_process_and_names_its_document(make, log, form, failure):
    """The harness sets Pillow to accept truncated files; ours must not."""
    ask, message = FAILURES[failure]
    with pytest.raises(SystemExit) as ended:
        ready(make(f"{form}_vanilla")).generate_until([ask(form)])
    assert ended.value.code == 1
    assert message in log.getvalue() and "task toy" in log.getvalue()


def test_an_unforeseen_failure_is_logged_with_its_traceback(make, log, monkeypatch):
    entry = ready(make())
    monkeypatch.setattr(entry.engine.family, "embed", lambda inputs: 1 / 0)
    with pytest.raises(SystemExit):
        entry.generate_until([request("Chat", photo("cat", 50, 50), doc_id=6)])
    assert "document 6" in log.getvalue() and "Traceback" in log.getvalue() and "ZeroDivisionError" in log.getvalue()


def test_what_the_chat_form_would_drop_is_refused(make, log):
    dropped = request("Chat", photo("cat", 50, 50), context="You are terse. What is this?")
    with pytest.raises(SystemExit):
        ready(make()).generate_until([dropped])
    assert "'You are terse. '. Run with --force_simple" in log.getvalue()
    kept = request("Simple", photo("cat", 50, 50), context="You are terse. What is this?")
    assert ready(make("Simple_vanilla")).generate_until([kept])


@pytest.mark.parametrize("more", [{}, {"fewshot_as_multiturn": True}])
@pytest.mark.parametrize("tracked", [False, True])
def test_the_harnesss_way_with_chat_templates_is_refused(make, evaluate, log, tmp_path, tracked, more):
    """The harness asks by another name where it writes results."""
    if tracked:
        more = {**more, "evaluation_tracker": EvaluationTracker(output_path=str(tmp_path))}
    with pytest.raises(SystemExit) as ended:
        evaluate(make(), ("gqa",), apply_chat_template=True, **more)
    assert ended.value.code == 1
    assert "--apply_chat_template (and --fewshot_as_multiturn) is not supported" in log.getvalue()
    assert "conversation=processor" in log.getvalue()


def test_loglikelihoods_are_refused(make, log):
    with pytest.raises(SystemExit):
        make().loglikelihood([request("Chat", None)])
    assert "task toy asks for log-likelihoods" in log.getvalue()


# ---- options, before any weight is read -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": "./nowhere"}, "there is no such folder"),
        ({"rho": 2}, "Unknown option 'rho'"),
        ({"dtpye": "float32"}, "Unknown option 'dtpye'. Did you mean 'dtype'?"),
        ({"dtype": "float16"}, "dtype=float16 on this CPU"),
        (
            {"attn_implementation": "eager"},
            "attn_implementation=eager is not allowed. Allowed: sdpa, flash_attention_2",
        ),
        (
            {"conversation": "vicuna"},
            "conversation=vicuna is not allowed. Allowed: vicuna_v1, chatml_direct",
        ),
        ({"batch_size": "auto"}, "batch_size=auto"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"trace": "/dev/null/trace.jsonl"}, "trace=/dev/null/trace.jsonl cannot be written"),
        ({"trace": "/dev"}, "trace=/dev is a folder. Name a file, like /dev/trace.jsonl"),
        ({"trace": ""}, "trace= is not allowed. Allowed: a file"),
    ],
)
def test_options_that_are_refused(make, log, monkeypatch, options, message):
    monkeypatch.setattr("lmms_ca_plugin.engine.load.AutoModelForImageTextToText.from_pretrained", None)
    with pytest.raises(SystemExit) as ended:
        make(**options)
    assert ended.value.code == 1 and message in log.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Name its blocks (0 to 5)"),
        ({**LAYERS, "review_layer": 6}, "review_layer: the checkpoint has no block 6. Allowed: 0 to 5"),
        ({**LAYERS, "rho": 1.2}, "rho=1.2 is not a share"),
    ],
)
def test_a_methods_options_are_refused_before_the_weights(make, log, monkeypatch, options, message):
    monkeypatch.setattr("lmms_ca_plugin.engine.load.AutoModelForImageTextToText.from_pretrained", None)
    with pytest.raises(SystemExit):
        make("Chat_contrastive", **options)
    assert message in log.getvalue()


def test_without_options_the_default_checkpoint_is_asked_for(monkeypatch):
    asked = {}

    def remember(*args, **kwargs):
        asked["checkpoint"] = args[2]
        raise OptionError("enough")

    monkeypatch.setattr(Engine, "load", remember)
    with pytest.raises(SystemExit):
        __import__("lmms_ca_plugin.harness.entries", fromlist=["x"]).Chat_contrastive()
    assert asked["checkpoint"].pretrained == "llava-hf/llava-1.5-7b-hf"
