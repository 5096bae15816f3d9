"""Studies in several processes: the answers and files of one, and no process that is left, whatever ends them."""

import os
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from study_files import Clock, contents
from typer.testing import CliRunner

from lmms_ca_plugin.cli import build
from lmms_ca_plugin.devices import LOCAL_PROCESSES, cores
from lmms_ca_plugin.engine.budget import measured
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.engine.requests import Request, batches, share
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness import journal, processes
from lmms_ca_plugin.harness.answering import Began, key_of
from lmms_ca_plugin.harness.journal import FILE, Journal
from lmms_ca_plugin.harness.processes import check_processes
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.methods._variant import Variant

CPU = SimpleNamespace(device=torch.device("cpu"))
GPU = SimpleNamespace(device=torch.device("cuda:0"))


@pytest.fixture
def study(asked):
    """With a variant that shares its passes with none, and one that the weights rule out; two batches of each task."""
    variants = [asked.variant("vanilla", "vanilla"), asked.variant("masked", "layermask", layer=2)]
    return asked.study("s", [*variants, Variant("sinks", "var", {"tau": 5.6}), asked.variant("crop", "vicrop")])


def answers_of(finished):
    return {name: dict(finished.answers[name]) for name in finished.results}


def test_two_processes_give_the_answers_and_files_of_one(study, monkeypatch):
    study = replace(study, variants=study.variants[:3])  # what shares no pass would start two more
    one = Runner(study, leave_out=True).run()
    monkeypatch.setattr(journal, "datetime", Clock(one))
    runner = Runner(replace(study, output=study.output.with_name("two"), processes=2), leave_out=True)
    two = runner.run()
    assert set(two.results) == {"vanilla", "masked"} and "no sink dims" in str(two.failed["sinks"])
    assert answers_of(two) == answers_of(one)
    assert contents(runner.study.output) == contents(study.output)
    assert "family" not in vars(runner.answering), "its memory is the other processes' now"
    written = [(output / FILE).read_text().splitlines() for output in (study.output, runner.study.output)]
    assert len(written[0]) == len(written[1]), "a batch was answered twice, or a record told twice"


def test_what_two_processes_began_one_ends(study):
    """How many they are is no part of what a study is."""
    runner = Runner(study, leave_out=True)
    assert runner.identity == Runner(replace(study, processes=2)).identity
    with Journal(study.output, runner.identity) as begun:
        for group in (("vanilla", "masked"), ("crop",)):
            keys = list(map(key_of, runner.answering.tasks.instances()))
            began, *told = runner.answering.answers(group, keys, place=1, processes=2)
            assert isinstance(began, Began) and 0 < sum(len(one.asked) for one in told) < len(keys)
            for name, facts in began.facts.items():
                begun.know(name, facts)
            for one in told:
                begun.write(one.asked, one.answers)
    whole = Runner(replace(study, output=study.output.with_name("whole")), leave_out=True).run()
    again = runner.run()
    assert answers_of(again) == answers_of(whole)


def test_a_variant_that_is_ruled_out_holds_no_memory(study):
    """Its error would, by the frames that it came through."""
    runner = Runner(study, leave_out=True)
    with Journal(study.output, runner.identity) as begun:
        failed = runner._ruled_out(begun)
    held = weakref.ref(runner.answering.family.model)
    runner.answering.unload()
    assert set(failed) == {"sinks"} and held() is None


@drawn(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=40),
    size=st.integers(1, 5),
    number=st.integers(1, 5),
)
def test_shares_hold_the_batches_of_one_process(lengths, size, number):
    asked = [Request(SimpleNamespace(length=length), Generation(tokens)) for length, tokens in lengths]
    whole = list(batches(asked, size))
    for place in range(number):
        own = share(asked, size, place, number)
        again = [[own[i] for i in indices] for indices in batches([asked[i] for i in own], size)]
        assert again == whole[place::number]


# ---- what is allowed -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "place", "found", "message"),
    [
        (0, {}, CPU, "processes=0 is not allowed. Allowed: 1 to 4, the cores that PyTorch may use here."),
        (5, {}, CPU, "processes=5 is not allowed. Allowed: 1 to 4, the cores"),
        (3, {}, GPU, "processes=3 is not allowed. Allowed: 1 to 2, the GPUs that PyTorch may use here."),
        (2, {"device": "cuda:1"}, GPU, "processes=2 and device=cuda:1: each process takes a GPU of its own."),
        (
            2,
            {"device_map": "auto"},
            GPU,
            "processes=2 and device_map=auto: .* Give one of the two; CUDA_V",
        ),
    ],
)
def test_what_cannot_be_is_refused(study, monkeypatch, number, place, found, message):
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = replace(study, processes=number, checkpoint=CheckpointOptions("x", **place))
    with pytest.raises(OptionError, match=message):
        check_processes(asked, found)
    check_processes(replace(asked, processes=1), found)


def test_a_launcher_is_refused_before_weights_are_read(study, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="starts its processes itself. Run it without a launcher, and give --proc"):
        Runner(study)


def test_gpus_of_two_kinds_are_refused(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["H100", "H100", "A100"].__getitem__)
    check_processes(replace(study, processes=2), GPU)
    with pytest.raises(OptionError, match="processes=3 would mix answers of H100 and A100.* CUDA_VISIBLE_DEVICES name"):
        check_processes(replace(study, processes=3), GPU)


def test_each_process_has_a_gpu_of_its_own(study):
    four = replace(study, processes=4)
    placed = processes._placed(four, GPU.device, 3)
    assert placed == replace(study, checkpoint=replace(study.checkpoint, device="cuda:3"))
    for checkpoint in (study.checkpoint, CheckpointOptions("x", device_map="cpu"), CheckpointOptions("x", "cpu")):
        asked = replace(four, checkpoint=checkpoint)
        check_processes(replace(asked, processes=2), CPU)
        assert processes._placed(asked, CPU.device, 3) == replace(asked, processes=1)


def test_no_more_processes_than_batches(study, monkeypatch):
    told = []
    monkeypatch.setattr(processes, "gathered", lambda produce, shares: (share for share in told.append(shares) or []))
    keys = [("mini_gqa", i) for i in range(4)]
    assert list(processes.spread(replace(study, processes=8), CPU.device, ["vanilla"], keys)) == []
    assert [share[3:] for share in told[0]] == [(0, 2), (1, 2)]  # in threes


def test_processes_share_what_a_computer_has(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(9))
    alone = measured({torch.device("cpu"): 6})
    assert cores() == 9
    monkeypatch.setenv(LOCAL_PROCESSES, "4")
    assert (cores(), measured({torch.device("cpu"): 6})) == (2, alone // 4)
    monkeypatch.setenv(LOCAL_PROCESSES, "16")
    assert cores() == 1


@pytest.mark.parametrize("verb", [["sweep", "ratio"], ["reproduce", "fig7"], ["profile", "mini"]])
def test_the_verbs_take_their_number(verb, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 4)
    refused = CliRunner().invoke(build(), [*verb, "--processes", "77"])
    assert isinstance(refused.exception, OptionError) and "processes=77 is not allowed" in str(refused.exception)
