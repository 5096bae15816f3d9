"""Batches of a run: what is done ahead of their turn, in which order, and what fails there."""

import os
import threading
from dataclasses import replace

import pytest
import torch
from toys import ask, make_family, mixed_questions, photo

from lmms_ca_plugin.engine.ahead import Ahead, Ready
from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import GenerationError
from lmms_ca_plugin.families._contract import Inputs, Message
from lmms_ca_plugin.methods import load_method

NEW = Generation(max_new_tokens=3)


def front(kind, family, batch_size=2):
    options, vanilla = RunOptions(batch_size=batch_size), load_method("vanilla")()
    if kind == "branched":
        return Branched(family, {"vanilla": vanilla}, options, is_main=False)
    return Engine(family, vanilla, options, is_main=False)


def watched(events, breaks=None):
    """Eight questions that write down when they are read and by which thread; one of them may break."""

    def read(index, question):
        events.append(("read", index, threading.current_thread().name))
        if index == breaks:
            raise OSError("image file is truncated")
        return question.conversation()

    questions = [replace(q, length=8 - i) for i, q in enumerate(mixed_questions())]  # answered in this order
    return [Request(replace(q, conversation=lambda i=i, q=q: read(i, q)), NEW) for i, q in enumerate(questions)]


def left():
    """Threads that work for a front."""
    return [t for t in threading.enumerate() if t.name.startswith(("ahead", "encoding"))]


@pytest.fixture(params=["engine", "branched"])
def kind(request):
    return request.param


def test_the_next_batch_is_read_beside_the_model_and_no_other(kind, monkeypatch):
    made, events = front(kind, make_family("llava")), []
    requests = watched(events)
    compute = made._answer_together

    def together(questions, generation, inputs):
        first = questions[0].doc_id
        deadline = threading.Event()
        while len([e for e in events if e[0] == "read"]) < min(first + 4, 8):
            assert not deadline.wait(0.001)
        events.append(("computed", first))
        return compute(questions, generation, inputs)

    monkeypatch.setattr(made, "_answer_together", together)
    taken = [indices for indices, _ in made.each_batch(requests)]
    assert taken == [[0, 1], [2, 3], [4, 5], [6, 7]]
    reads = [e for e in events if e[0] == "read"]
    assert [index for _, index, _ in reads] == list(range(8))
    assert {name for *_, name in reads} == {"encoding_0"}
    for first in (0, 2, 4, 6):
        before = events[: events.index(("computed", first))]
        assert sum(e[0] == "read" for e in before) == min(first + 4, 8)
    assert 0 < made.spent.waiting < made.spent.encoding


def test_what_is_done_ahead_leaves_the_cores_to_the_model(kind, monkeypatch):
    """On a CPU a second team of threads costs the model 3 % of its time; see `engine/ahead.py`."""
    made, told = front(kind, make_family("llava")), []
    monkeypatch.setattr(torch, "set_num_threads", lambda n: told.append((threading.current_thread().name, n)))
    list(made.each_batch(watched([])))
    assert sorted(told) == [("ahead_0", 1), ("encoding_0", 1)]


def test_beside_a_gpu_a_batch_is_made_ready_by_several_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    family, together = make_family("llava_next"), threading.Barrier(4, timeout=10)

    def encode(questions):
        together.wait()  # for three others
        return Ready(questions, family.encode(questions))

    turns, pad_token = [mixed_questions(), mixed_questions()[:7]], family.processor.tokenizer.pad_token_id
    with Ahead(turns, encode, pad_token, beside_gpu=True) as ahead:
        for questions in turns:
            ready = ahead.take()
            assert list(ready.questions) == list(ready.inputs.questions) == questions
            assert_same_inputs(ready.inputs, family.encode(questions))
    assert not left() and ahead.spent.encoding > 0


def test_parts_of_a_batch_are_joined_as_the_processor_joins_them(any_family):
    """Pictures of other shapes, none, several; prompts of other lengths."""
    questions = [*mixed_questions(), ask(8, "Why?"), ask(9, "Which?", photo("coffee", 120, 60), photo("cat", 60, 130))]
    pad_token = any_family.processor.tokenizer.pad_token_id
    for size in (1, 3, 4, 10):
        parts = [any_family.encode(questions[first : first + size]) for first in range(0, 10, size)]
        assert_same_inputs(Inputs.joined(parts, pad_token), any_family.encode(questions))
    blank = [ask(0, "Why?"), ask(1, "What is two plus two?")]
    joined = Inputs.joined([any_family.encode([question]) for question in blank], pad_token)
    assert_same_inputs(joined, any_family.encode(blank))
    assert joined.pictures == {}


def test_parts_whose_method_makes_the_inputs_are_joined_without_any():
    questions = mixed_questions()
    parts = [Ready(questions[:3], None), Ready(questions[3:], None)]
    assert Ready.joined(parts, pad_token=0) == Ready(questions, None)


def assert_same_inputs(mine, theirs):
    assert torch.equal(mine.input_ids, theirs.input_ids) and torch.equal(mine.attention_mask, theirs.attention_mask)
    assert mine.pictures.keys() == theirs.pictures.keys()
    for name, tensor in theirs.pictures.items():
        assert torch.equal(mine.pictures[name], tensor)
    assert (mine.num_pictures, mine.features) == (theirs.num_pictures, theirs.features)


def test_answers_are_those_of_batches_answered_one_at_a_time(any_family):
    made = front("engine", any_family)
    requests = watched([])
    alone = [
        answer for i in range(0, 8, 2) for answer in made.answer_batch([r.question for r in requests[i : i + 2]], NEW)
    ]
    assert made.answer(requests) == alone


def test_a_picture_that_breaks_ahead_ends_the_run_in_its_turn_and_is_named(kind):
    made, events = front(kind, make_family("llava")), []
    done = []
    with pytest.raises(GenerationError) as caught:
        for indices, _ in made.each_batch(watched(events, breaks=5)):
            done.append(indices)
    assert done == [[0, 1], [2, 3]], "what was asked before it is answered"
    message = str(caught.value)
    assert "failed at [task toy, split val, document 4; task toy, split val, document 5]: InputError: " in message
    assert "task toy, split val, document 5: cannot be read: OSError: image file is truncated" in message
    assert max(index for _, index, _ in events) == 5
    assert not left()


def test_no_thread_is_left_when_the_model_fails_or_nobody_takes_the_rest(monkeypatch):
    made = front("engine", make_family("llava"))
    batches = made.each_batch(watched([]))
    next(batches)
    batches.close()
    assert not left()

    def fails(questions, generation, inputs):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(made, "_answer_together", fails)
    with pytest.raises(GenerationError, match="document 1]: RuntimeError: no kernel"):
        made.answer(watched([]))
    assert not left()


def test_a_method_that_makes_its_inputs_has_its_pictures_decoded_ahead():
    method = load_method("vicrop").from_options({"layer": 3})
    made, events = Engine(make_family("llava"), method, RunOptions(batch_size=2), is_main=False), []
    made.answer(watched(events)[:4])
    assert [(index, name) for _, index, name in events] == [(i, "encoding_0") for i in range(4)]


def test_a_part_of_a_batch_is_what_its_questions_give_alone(any_family):
    cat = photo("cat", 60, 130)
    questions = [
        replace(mixed_questions()[2], conversation=lambda: (Message("user", "Which is older?", (cat, cat)),)),
        *mixed_questions()[:2],
        replace(mixed_questions()[3], conversation=lambda: (Message("user", "Why?", ()),)),
    ]
    whole = any_family.encode(questions)
    for first, end in ((0, 1), (1, 3), (3, 4), (0, 4)):
        part, alone = whole.part(first, end), any_family.encode(questions[first:end])
        assert torch.equal(part.input_ids, alone.input_ids) and torch.equal(part.attention_mask, alone.attention_mask)
        assert part.num_pictures == alone.num_pictures and part.questions == alone.questions
        assert part.pictures.keys() == alone.pictures.keys()
        if part.pictures:
            mine, theirs = any_family.look(part), any_family.look(alone)
            assert all(torch.allclose(m.states, t.states) for m, t in zip(mine, theirs, strict=True))
