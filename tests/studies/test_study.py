"""Studies: what one run of a variant gives, what a stop costs, and whose documents are asked."""

import json
import re
import resource
import shlex
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from shutil import copytree

import pytest
from datasets import Dataset
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from safetensors.numpy import load_file, save_file
from study_files import Clock, contents

from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import CheckpointError, GenerationError, InputError, OptionError
from lmms_ca_plugin.harness import entries, journal, loaded
from lmms_ca_plugin.harness.journal import FILE, Journal
from lmms_ca_plugin.harness.loaded import LoadedTasks, load_tasks, subset
from lmms_ca_plugin.harness.replay import _alone, write_files
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.layer_profile import LayerProfile
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.options import split_args
from lmms_ca_plugin.results.runs import read_runs

VARIANTS = (
    ("vanilla", "vanilla", {}),
    ("contrastive", "contrastive", {}),
    ("rho_0", "contrastive", {"rho": 0.0}),
    ("masked", "layermask", {"layer": 2}),
    ("crop", "vicrop", {}),
)


def small(asked):
    return asked.study("small", [asked.variant(name, method, **options) for name, method, options in VARIANTS])


@pytest.fixture
def study(asked):
    """One that has not begun."""
    return small(asked)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """One that has run; not to be written into."""
    return Runner(small(replace(settings, output=tmp_path_factory.mktemp("finished")))).run()


@pytest.fixture
def copied(finished, study):
    """The same in a folder of the test's own."""
    copytree(finished.study.output, study.output)
    return study


def answers(finished):
    return {name: {key: a.text for key, a in of.items()} for name, of in finished.answers.items()}


def test_every_variant_answers_as_a_run_of_its_own(settings, finished):
    """The harness's own evaluation of the entry, at the same documents."""
    study = finished.study
    for variant in study.variants:
        (single,) = (v for v in study.variants if v.name == variant.name)
        entry = getattr(entries, f"Chat_{variant.method}")(
            pretrained=settings.checkpoint.pretrained, batch_size=3, **single.options
        )
        tasks = load_tasks(study.tasks, study.limit, study.seed)
        alone = simple_evaluate(
            model=entry, tasks=list(tasks.tasks.values()), task_manager=tasks.manager, bootstrap_iters=0, batch_size=3
        )
        for task, samples in alone["samples"].items():
            for sample in samples:
                assert finished.answers[variant.name][task, sample["doc_id"]].text == sample["filtered_resps"][0]
        runs, _ = read_runs([finished.results[variant.name]])
        for run in runs:
            assert run.documents[run.main].mean() == pytest.approx(alone["results"][run.task][f"{run.main},none"])
    texts = answers(finished)
    assert texts["rho_0"] == texts["vanilla"] != texts["masked"]


def test_what_was_computed_once_says_so(finished):
    same = {name: {answer.same_as for answer in of.values()} for name, of in finished.answers.items()}
    assert same["rho_0"] == {"vanilla"} and same["contrastive"] == same["vanilla"] == {None}
    (sample_file,) = finished.results["rho_0"].parent.glob("*samples_mini_gqa.jsonl")
    for line in sample_file.read_text().splitlines():
        logged = json.loads(line)["lmms_ca"]
        assert logged["same_as"] == "vanilla" and logged["log"]["masked_tokens"] == 0


def test_the_results_file_records_the_run(settings, finished):
    (run, _), _ = read_runs([finished.results["masked"]])
    found = run.provenance
    assert (found.method, found.seconds, found.batch_size, found.seed) == ("layermask", None, "3", "0")
    assert "layer=2" in found.method_args and found.model == settings.checkpoint.pretrained


def test_the_results_file_tells_how_prompts_were_prepared(asked):
    """Two studies that differ in it are two measurements."""
    plain = replace(asked, inputs=InputOptions("processor"), tasks=("mini_gqa",), limit=1)
    finished = Runner(plain.study("plain", [plain.variant("vanilla", "vanilla")])).run()
    (run,), _ = read_runs([finished.results["vanilla"]])
    assert run.provenance.method_args == "conversation=processor,image_aspect_ratio=pad"


def test_the_results_file_tells_the_command_that_runs_the_variant_alone(settings, finished):
    found = {name: read_runs([finished.results[name]])[0][0].provenance.command for name in ("contrastive", "crop")}
    words = shlex.split(found["contrastive"], comments=True)
    told = {word[2:]: value for word, value in pairwise(words) if word.startswith("--") and word != "--log_samples"}
    assert (told["model"], told["tasks"]) == ("llava_contrastive", "mini_docvqa,mini_gqa")
    assert (told["batch_size"], told["limit"]) == ("3", "4") and words[-1] == "--log_samples"
    assert found["contrastive"].endswith("# in a study, on the subset of seed 0: --limit takes other documents")
    args = split_args(told["model_args"])
    entry = entries.Chat_contrastive(**args, batch_size=3)
    (variant,) = (v for v in finished.study.variants if v.name == "contrastive")
    assert (entry.engine.method.post_layer, entry.engine.method.lam) == (4, 1e-9), "what was settled is typed"
    assert replace(entry.engine.method, post_layer=None, lam=None) == variant.made()
    assert args["pretrained"] == settings.checkpoint.pretrained
    assert found["crop"].startswith("lmms-eval --model llava_vicrop --model_args pretrained=")


def test_a_study_on_all_documents_has_no_limit():
    record = {
        "entry": "vanilla",
        "pretrained": "a/b",
        "revision": None,
        "dtype": "float32",
        "conversation": "processor",
    }
    record |= {"image_aspect_ratio": "pad", "max_pixels": 40000, "seed": 0, "parameters": {}, "batch_size": 8}
    told = vars(_alone(record, LoadedTasks(None, {"ca_gqa": None, "ca_vizwiz": None}, dict.fromkeys(["ca_gqa"]))))
    assert (told["limit"], told["subset_seed"], told["tasks"]) == (None, None, "ca_gqa,ca_vizwiz")
    assert (
        told["model_args"]
        == "pretrained=a/b,dtype=float32,conversation=processor,image_aspect_ratio=pad,max_pixels=40000,seed=0"
    )


# ---- stops -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_study_that_stopped_goes_on_and_leaves_the_same_files(study, finished, monkeypatch, batches):
    other = study
    written = []
    write = Journal.write

    def stopping(self, *args):
        if len(written) == batches:
            raise KeyboardInterrupt
        written.append(args)
        write(self, *args)

    monkeypatch.setattr(journal, "datetime", Clock(finished))
    monkeypatch.setattr(Journal, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        Runner(other).run()
    monkeypatch.setattr(Journal, "write", write)
    with (other.output / FILE).open("a") as file:
        file.write('{"asked": [["mini_gqa", 1]], "ans')  # what a kill in the middle of a line leaves
    computed = []
    monkeypatch.setattr(Journal, "write", lambda self, *args: (computed.append(args), write(self, *args)))
    again = Runner(other).run()
    total = 4 + 4  # batches of all shared variants, and of vicrop
    assert len(computed) == total - batches
    assert answers(again) == answers(finished)
    assert contents(other.output) == contents(finished.study.output)


def test_a_finished_study_loads_no_model(copied, finished, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    assert answers(Runner(copied).run()) == answers(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "is of another study: its seed is 0, not 1. Name another output folder"),
        ({"limit": 3}, "its limit is 4, not 3"),
        ({"variants": (Variant("vanilla", "vanilla", {}),)}, "its variants.contrastive is"),
    ],
)
def test_another_study_in_the_folder_is_refused(copied, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Runner(replace(copied, **change)).run()


def test_another_option_of_one_variant_is_named(copied):
    other = tuple(replace(v, options={**v.options, "rho": 0.5}) if v.name == "rho_0" else v for v in copied.variants)
    with pytest.raises(InputError, match=r"its variants.rho_0.rho is 0.0, not 0.5, and its seed differs. Name another"):
        Runner(replace(copied, variants=other, seed=1)).run()


def test_more_documents_are_added_to_those_that_are_there(copied, finished, monkeypatch):
    computed, write = [], Journal.write
    monkeypatch.setattr(Journal, "write", lambda self, *args: (computed.extend(args[0]), write(self, *args)))
    more = replace(copied, limit=6)
    again = Runner(more).run()
    assert len(computed) == 2 * 4  # two of each task, by those that share a pass, and by vicrop
    for name, answered in again.answers.items():
        assert len(answered) == 12
        assert {key: answered[key].text for key in finished.answers[name]} == answers(finished)[name]
    assert {run.task: len(run.documents) for run in read_runs([again.results["crop"]])[0]} == dict.fromkeys(
        copied.tasks, 6
    )
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    assert Runner(more).run().results == again.results
    with pytest.raises(InputError, match="its limit is 6, not 4"):
        Runner(copied).run()


def test_more_documents_of_another_data_set_are_refused(copied, monkeypatch):
    digest = LoadedTasks.digest
    monkeypatch.setattr(
        LoadedTasks, "digest", lambda self, limit=None: digest(self, limit) if limit is None else "other"
    )
    with pytest.raises(InputError, match="its limit is 4, not 6"):
        Runner(replace(copied, limit=6)).run()


@pytest.mark.parametrize(
    ("what", "other", "message"),
    [
        ("answering.checkpoint_sha", "ab12", "its weights is .*, not 'ab12'"),
        ("runner.versions", {"torch": "0"}, "its versions.plugin is "),
    ],
)
def test_a_finished_study_is_of_its_weights_and_versions(copied, monkeypatch, what, other, message):
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    monkeypatch.setattr(f"lmms_ca_plugin.harness.{what}", lambda *_: other)
    with pytest.raises(InputError, match=f"is of another study: {message}"):
        Runner(copied).run()


def test_what_is_overwritten_in_place_is_another_study(asked, checkpoint, tmp_path):
    copy, file = copytree(checkpoint, tmp_path / "copy"), tmp_path / "profile.json"
    file.write_text(json.dumps(LayerProfile("llava", 6, (1, 2), 4, 5).to_json()))
    other = replace(asked, checkpoint=CheckpointOptions(str(copy)))
    study = other.study("s", [Variant("c", "contrastive", {"profile": str(file)})])
    before = Runner(study).identity
    weights = load_file(copy / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    file.write_text(json.dumps(LayerProfile("llava", 6, (1, 3), 4, 5).to_json()))
    after = Runner(study).identity
    assert {name for name in after if after[name] != before[name]} == {"weights", "profiles"}


def test_a_data_set_with_other_rows_is_another_study(copied, monkeypatch):
    tasks = load_tasks(copied.tasks, copied.limit, copied.seed)
    asked = tasks.instances()[0]
    asked.arguments = (asked.args[0] + "?", *asked.args[1:])
    monkeypatch.setattr(LoadedTasks, "instances", lambda self: [i for t in tasks.tasks.values() for i in t.instances])
    with pytest.raises(InputError, match="is of another study: its questions is "):
        Runner(copied).run()


def test_a_data_set_with_other_pictures_is_another_study(copied, monkeypatch):
    read = loaded.chat_question

    def darker(request, documents):
        question = read(request, documents)
        turns = [replace(m, pictures=tuple(p.point(lambda v: v // 2) for p in m.pictures)) for m in question.read()]
        return replace(question, conversation=lambda: turns)

    monkeypatch.setattr(loaded, "chat_question", darker)
    with pytest.raises(InputError, match="is of another study: its questions is "):
        Runner(copied).run()


def test_other_facts_are_refused(copied, monkeypatch):
    lines = (copied.output / FILE).read_text().splitlines(keepends=True)
    (copied.output / FILE).write_text("".join(lines[:-2]))  # crop's last batch, and that its files are whole
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.run_record", lambda *_: {"entry": "x", "torch": "0"})
    with pytest.raises(InputError, match="was begun with .*; now it is .*Answers of both would be mixed"):
        Runner(copied).run()


def test_a_broken_line_in_the_middle_is_refused(copied):
    lines = (copied.output / FILE).read_text().splitlines(keepends=True)
    (copied.output / FILE).write_text("".join([lines[0], "{\n", *lines[1:]]))
    with pytest.raises(InputError, match="line 2 is not whole JSON"):
        Runner(copied).run()


def test_what_stopped_before_its_first_batch_does_not_block_the_corrected_study(study):
    mistyped = replace(study, batch_size=4096)
    with Journal(study.output, mistyped.identity) as journal:
        journal.know("vanilla", {"entry": "vanilla"})
    with Journal(study.output, study.identity) as journal:
        assert not journal.facts
    header, *rest = (study.output / FILE).read_text().splitlines()
    assert json.loads(header)["batch_size"] == study.batch_size and not rest


def test_one_process_writes_a_journal(study, tmp_path):
    with Journal(tmp_path, study.identity), pytest.raises(InputError, match="is being written by another process"):
        Journal(tmp_path, study.identity).__enter__()
    with Journal(tmp_path, study.identity) as again:
        assert again.date


@pytest.mark.parametrize("lost", ["save_results_samples", "save_results_aggregated"])
def test_files_that_the_harness_could_not_write_are_written_by_the_next_run(study, finished, monkeypatch, lost):
    """Of a full disk it only logs."""
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationTracker, lost, lambda self, **given: None)
        with pytest.raises(
            InputError, match=r"did not write all files of vanilla: the disk is full, or .*harness.log says"
        ):
            Runner(study).run()
    assert not (study.output / "vanilla").exists()
    assert answers(Runner(study).run()) == answers(finished)


@contextmanager
def no_more_than(size):
    """No file may grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_journal_on_a_full_disk_is_named_and_keeps_what_it_holds(study):
    with Journal(study.output, study.identity) as begun:
        begun.know("vanilla", {"entry": "vanilla"})
        begun.write([("gqa", 0)], {name: [Answer("yes", 9, 4, 1, {})] for name, *_ in VARIANTS})
        size = begun.path.stat().st_size
    said = (
        r"journal.jsonl cannot be written: .*File too large.*What it holds is kept: make room, and run the same again"
    )
    with (
        pytest.raises(InputError, match=said),
        no_more_than(size + 9),
        Journal(study.output, study.identity) as full,
    ):
        full.know("contrastive", {"entry": "contrastive"})
    with Journal(study.output, study.identity) as again:
        assert again.facts == {"vanilla": {"entry": "vanilla"}} and again.answers.asked("crop") == {("gqa", 0)}


def test_a_finished_variant_is_neither_scored_nor_written_again(copied, monkeypatch):
    """Only the one whose files a stop has cut."""
    lines = (copied.output / FILE).read_text().splitlines(keepends=True)
    (copied.output / FILE).write_text("".join(lines[:-1]))
    scored = []

    def write(replay, tasks, folder, *more):
        scored.append(folder.name)
        return write_files(replay, tasks, folder, *more)

    monkeypatch.setattr("lmms_ca_plugin.harness.runner.write_files", write)
    assert set(Runner(copied).run().results) == {name for name, *_ in VARIANTS}
    assert scored == ["crop"]
    assert set(Runner(copied).run().results) and scored == ["crop"]


def test_a_stop_while_files_are_written_leaves_the_whole_ones(copied, monkeypatch):
    (before,) = (copied.output / "crop").rglob("*_results.json")
    whole = before.read_text()
    lines = (copied.output / FILE).read_text().splitlines(keepends=True)
    (copied.output / FILE).write_text("".join(lines[:-1]))

    def stops(self, **given):
        raise KeyboardInterrupt

    monkeypatch.setattr(EvaluationTracker, "save_results_samples", stops)
    with pytest.raises(KeyboardInterrupt):
        Runner(copied).run()
    assert before.read_text() == whole and list(copied.output.glob(".crop/**/*_results.json"))
    assert len(read_runs([copied.output])[0]) == len(VARIANTS) * len(copied.tasks), "a part was taken for a run"


def test_a_variant_that_fails_alone_leaves_the_others_their_files(study, monkeypatch):
    """Two pictures in one question are what ViCrop cannot show."""

    def refuses(self, questions, passes):
        raise OptionError("two pictures")

    monkeypatch.setattr(load_method("vicrop"), "prepare", refuses)
    finished = Runner(study).run()
    assert set(finished.results) == {"vanilla", "contrastive", "rho_0", "masked"}
    assert [variant.name for variant in finished.study.variants] == list(finished.results)
    ((name, why),) = finished.failed.items()
    assert name == "crop" and isinstance(why, GenerationError) and "OptionError: two pictures" in str(why)
    part = finished.part("p", [v for v in study.variants if v.name in ("vanilla", "crop")])
    assert [v.name for v in part.study.variants] == ["vanilla"] and set(part.failed) == {"crop"}


def test_what_the_weights_rule_out_is_left_out_where_that_is_asked_for(asked):
    study = asked.study("sinks", [asked.variant("vanilla", "vanilla"), Variant("var", "var", {"tau": 5.6})])
    with pytest.raises(CheckpointError, match="no sink dims"):
        Runner(study).run()
    finished = Runner(study, leave_out=True).run()
    assert set(finished.results) == {"vanilla"} and "no sink dims" in str(finished.failed["var"])


def test_what_was_timed_is_kept(copied, monkeypatch):
    timed = Runner(copied).timed(["vanilla", "masked"], 2)
    assert {name: set(of) for name, of in timed.found.items()} == {n: set(copied.tasks) for n in ("vanilla", "masked")}
    assert all(len(one.answers) == 2 for of in timed.found.values() for one in of.values())
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    assert Runner(copied).timings == timed and (timed.questions, timed.device) == (2, "cpu")
    assert Runner(replace(copied, seed=1)).timings.found == {}


def test_a_failure_names_the_document_and_keeps_the_rest(study, monkeypatch):
    from lmms_ca_plugin.families.llava import Llava

    encode, calls = Llava.encode, []

    def failing(self, questions):
        calls.append(questions)
        if len(calls) == 3:  # the first is the self-check's
            raise RuntimeError("no more paper")
        return encode(self, questions)

    monkeypatch.setattr(Llava, "encode", failing)
    with pytest.raises(GenerationError, match=r"small failed at \[task mini_.*no more paper"):
        Runner(study).run()
    with Journal(study.output, study.identity) as kept:
        assert len(kept.answers["masked"]) == 3


# ---- documents -------------------------------------------------------------------------------------------------------
def test_a_subset_is_seeded_and_nested():
    few, more = subset("t", 100, 5, 0), subset("t", 100, 9, 0)
    assert len(few) == 5 and few < more and few != subset("t", 100, 5, 1) and few != subset("u", 100, 5, 0)
    assert subset("t", 5, 5, 0) is subset("t", 5, None, 0) is None


def test_documents_keep_their_numbers(finished):
    asked = {task: {doc for t, doc in finished.answers["vanilla"] if t == task} for task in finished.study.tasks}
    assert asked == {task: set(subset(task, 500, 4, 0)) for task in finished.study.tasks}
    assert any(max(of) > 4 for of in asked.values())


def test_a_subset_is_scored_without_reading_the_rest(copied, finished, monkeypatch):
    """Else a few documents of a large set take as long to score as all, variant by variant."""
    journal_file = copied.output / FILE
    lines = [line for line in journal_file.read_text().splitlines(True) if "scored" not in json.loads(line)]
    journal_file.write_text("".join(lines))  # so every variant is scored once more
    runner, walks, walk = Runner(copied), [], Dataset.__iter__
    runner.answering.tasks.instances()  # the harness builds requests of all documents, once
    monkeypatch.setattr(Dataset, "__iter__", lambda self: walks.append(self) or walk(self))
    again = runner.run()
    assert len(again.results) == len(VARIANTS) and walks == []
    for name, file in again.results.items():
        scored = [run.documents for run in read_runs([file])[0]]
        before = [run.documents for run in read_runs([finished.results[name]])[0]]
        assert all(there.equals(here) for there, here in zip(before, scored, strict=True))


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (
            lambda doc, answers: {"submission": {"id": 3, "answer": answers[0]}},
            "logs submission of a document, and no sc",
        ),
        (lambda doc, answers: {"level": 3.5}, "logs level of a document, and no score from 0 to 1"),
        (lambda doc, answers: {"words": answers[0].split()[0]}, "its scorer fails on a blank answer: IndexError"),
    ],
)
def test_a_task_without_scores_is_refused_before_weights_are_read(study, scorer, message, monkeypatch):
    runner = Runner(study)
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    monkeypatch.setattr(runner.answering.tasks.tasks["mini_docvqa"], "process_results", scorer)
    with pytest.raises(InputError, match=f"task mini_docvqa: .*{message}"):
        runner.run()


@pytest.mark.parametrize(
    ("tasks", "limit", "message"),
    [
        (("mini_gqq",), None, "Unknown task 'mini_gqq'. Did you mean 'mini_gqa'?"),
        (("mini_gqa",), 0, "limit=0 is not allowed. Allowed: 1 and more."),
    ],
)
def test_wrong_tasks_and_limits_are_refused(tasks, limit, message, monkeypatch):
    manager = loaded.TaskManager
    monkeypatch.setattr(loaded, "TaskManager", lambda *a, **k: manager(*a, **{**k, "include_defaults": False}))
    with pytest.raises(OptionError, match=re.escape(message)):
        load_tasks(tasks, limit, 0)


def test_two_variants_of_one_name_are_refused(asked):
    with pytest.raises(OptionError, match="two variants have one name"):
        Runner(asked.study("twice", [asked.variant("a", "vanilla"), asked.variant("a", "layermask", layer=1)]))


def test_a_layer_that_the_checkpoint_lacks_is_refused_before_weights_are_read(asked, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.harness.answering.load", None)
    with pytest.raises(OptionError, match="Allowed: 0 to 5"):
        Runner(asked.study("deep", [asked.variant("L9", "layermask", layer=9)]))


def test_a_bad_checkpoint_is_named(asked):
    with pytest.raises(Exception, match="there is no such folder"):
        Runner(replace(asked, checkpoint=CheckpointOptions("./nowhere")).study("s", []))
