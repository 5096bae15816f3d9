"""Training: packed lessons equal single prompts, labels lie where things are, an interruption changes nothing."""

import json
from dataclasses import replace
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._contract import Message, Question
from lmms_ca_plugin.families.llava import Llava
from lmms_ca_plugin.methods.vanilla import Vanilla
from lmms_ca_plugin.tiny import build_processor, write_checkpoint
from lmms_ca_plugin.tiny.model import untrained_model
from lmms_ca_plugin.tiny.settings import TinySettings
from lmms_ca_plugin.tiny.training import mini
from lmms_ca_plugin.tiny.training.answering import AnsweringModel, attends
from lmms_ca_plugin.tiny.training.lessons import COURSES, IGNORED, LessonData, questions
from lmms_ca_plugin.tiny.training.loop import Machine, Origin, Schedule, train
from lmms_ca_plugin.tiny.training.mini import MINI, TrainingPlan, finish_mini, plan_for, train_mini
from lmms_ca_plugin.tiny.training.seeing import Seeing, SeeingData
from lmms_ca_plugin.tiny.training.views import CLASSES, View, labels, some_view
from lmms_ca_plugin.tiny.world.captions import REQUEST
from lmms_ca_plugin.tiny.world.render import render
from lmms_ca_plugin.tiny.world.scenes import Scene, Sign, Thing, scene

HERE = Machine(workers=0)
FROM_SEED = Origin(0)
SMALL = replace(MINI, num_blocks=2, hidden_size=32, vision_hidden_size=32, vision_blocks=2)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return untrained_model(SMALL).eval(), build_processor(SMALL)


# ---- lessons ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [0, 7], ids=["one picture", "with a crop"])
def test_a_packed_question_stands_as_it_would_alone(small, step):
    """Same token ids as the family's own prompt, same logits as the model's own forward."""
    model, processor = small
    lesson = LessonData(processor.image_processor, 4, SMALL.view_tokens, "answering")[step]
    answering = AnsweringModel(model)
    with torch.no_grad():
        packed, wanted = answering.logits(lesson)
    family = Llava(model, processor)
    tokenizer, end = processor.tokenizer, processor.tokenizer.eos_token_id
    views = len(lesson.pixels) // len(lesson.input_ids)
    found = []
    for row in range(len(lesson.input_ids)):
        for number in range(1, int(lesson.segments[row].max()) + 1):
            mine = (lesson.segments[row] == number) | (lesson.segments[row] == 0)
            ids, labels_ = lesson.input_ids[row][mine], lesson.labels[row][mine]
            given = labels_ != IGNORED
            asked = int(given.float().argmax()) + 1
            text = tokenizer.decode(ids[lesson.segments[row].eq(0).sum() : asked])
            said = text.removesuffix(" ASSISTANT:")
            message = Message("user", said, (render(scene("page-eval-1")).image,) * views)
            prompt = family.encode([Question("t", "s", 0, lambda message=message: (message,))])
            assert prompt.input_ids[0].tolist() == ids[:asked].tolist()
            pixels = lesson.pixels[row * views : (row + 1) * views]
            with torch.no_grad():
                logits = model(input_ids=ids[None], pixel_values=pixels).logits[0]
            found.append(logits[given])
            assert labels_[given].tolist()[-1] == end
    torch.testing.assert_close(packed, torch.cat(found), rtol=1e-4, atol=1e-5)
    assert len(wanted) == len(packed)


@pytest.mark.parametrize("course", COURSES)
def test_a_blind_lesson_shows_nothing_and_asks_the_same(small, course):
    _, processor = small
    seen = LessonData(processor.image_processor, 3, SMALL.view_tokens, course)[0]
    blind = LessonData(None, 3, SMALL.view_tokens, course)[0]
    assert blind.pixels is None and (blind.input_ids != processor.tokenizer.image_token_id).all()
    for name in ("input_ids", "labels"):
        asked = [
            [getattr(lesson, name)[row][lesson.segments[row] > 0].tolist() for row in range(3)]
            for lesson in (seen, blind)
        ]
        assert asked[0] == asked[1] and all(map(len, asked[0]))


def test_a_question_sees_the_picture_and_itself():
    seen = attends(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0]
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("kind", ["shapes", "street", "page", "snap"])
def test_questions_behind_a_picture_differ(kind):
    answering, comparing = (
        list(questions(scene(f"{kind}-train-3"), Random(0), COURSES[course])) for course in ("answering", "comparing")
    )
    assert answering[0][0] == REQUEST and REQUEST not in dict(comparing)
    for asked in (answering, comparing):
        assert len({said for said, _ in asked}) == len(asked) > 2


def test_the_later_courses_ask_more_and_more_about_two_things():
    """Such a question names both: it says "the" at least twice."""
    shares = []
    for course in COURSES.values():
        asked = [
            said.split("\n")[0]
            for number in range(40)
            for said, _ in questions(scene(f"shapes-train-{number}"), Random(number), course)
        ]
        shares.append(sum(said.count(" the ") > 1 for said in asked) / len(asked))
    answering, comparing, refining, finishing = shares
    assert answering < 0.5 < comparing < refining < finishing


# ---- labels ----------------------------------------------------------------------------------------------------------
def test_patches_are_labelled_with_what_lies_on_them():
    shown = Scene("by-hand", things=(Thing("star", "red", "large", 0, 2),), signs=(Sign("STOP", "blue", 2),))
    found = {name: grid.view(8, 8) for name, grid in labels(shown, render(shown), View(), 8).items()}
    red, star, stop = (
        1 + CLASSES[name].index(of) for name, of in (("color", "red"), ("shape", "star"), ("word", "STOP"))
    )
    assert found["color"][1, 6] == red and found["shape"][1, 6] == star
    assert found["color"][4:, :].sum() == 0 and found["word"][:4].sum() == 0
    assert set(found["word"][5:].unique().tolist()) == {0, stop}
    assert (found["board"] > 0)[found["word"] > 0].all()


def test_labels_follow_a_crop():
    shown = Scene("by-hand", things=(Thing("star", "red", "large", 0, 2),), signs=(Sign("STOP", "blue", 2),))
    crop = View((128.0, 0.0), 128.0)
    found = {name: grid.view(8, 8) for name, grid in labels(shown, render(shown), crop, 8).items()}
    assert (found["color"] > 0).sum() > 9 and found["word"].sum() == 0
    assert crop.cut(render(shown).image).size == (128, 128)


def test_a_word_cut_in_half_is_not_asked_for():
    shown = Scene("by-hand", signs=(Sign("AIRPORT", "blue", 1),))
    (word,) = (mark for mark in render(shown).marks if mark.text)
    middle = (word.box[0] + word.box[2]) / 2
    found = labels(shown, render(shown), View((middle, 64.0), 100.0), 8)
    assert found["word"].sum() == 0 and found["board"].sum() > 0


def test_views_lie_inside_the_picture():
    draw = Random(0)
    views = [some_view(draw, 0.5) for _ in range(200)]
    assert 60 < views.count(View()) < 140
    assert all(v.box[0] >= 0 and v.box[2] <= 256 and v.side >= 100 for v in views)


# ---- the loop --------------------------------------------------------------------------------------------------------
class Numbers(torch.utils.data.Dataset):
    def __getitem__(self, step):
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def fresh():
    torch.manual_seed(1)
    return nn.Linear(3, 1)


def square(module):
    return lambda batch: (module(batch) - batch.sum(-1, keepdim=True)).square().mean()


def test_an_interruption_changes_nothing(tmp_path, monkeypatch):
    schedule = Schedule(12, 4, 0.05, warmup=3)
    whole = fresh()
    train("whole", whole, Numbers(), square(whole), schedule, HERE, FROM_SEED, tmp_path)

    class Stop(Exception):
        pass

    cut, steps = fresh(), []

    def stopping(batch):
        steps.append(1)
        if len(steps) == 8:
            raise Stop
        return square(cut)(batch)

    monkeypatch.setattr("lmms_ca_plugin.tiny.training.loop._SAVE_EVERY", 0.0)
    with pytest.raises(Stop):
        train("cut", cut, Numbers(), stopping, schedule, HERE, FROM_SEED, tmp_path)
    again = fresh()
    done = train("cut", again, Numbers(), square(again), schedule, HERE, FROM_SEED, tmp_path)
    assert done.steps == 12
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.bias, whole.bias)
    assert not torch.equal(whole.weight, fresh().weight)


def test_another_schedule_origin_or_model_is_refused(tmp_path):
    module = fresh()
    train("t", module, Numbers(), square(module), Schedule(2, 4, 0.05), HERE, FROM_SEED, tmp_path)
    with pytest.raises(InputError, match="is of another schedule: .*steps=2.*Name another folder"):
        train("t", module, Numbers(), square(module), Schedule(3, 4, 0.05), HERE, FROM_SEED, tmp_path)
    with pytest.raises(
        InputError, match=r"is of another origin: .*start=None\), not .*start='abc'\). Name another folder"
    ):
        train("t", module, Numbers(), square(module), Schedule(2, 4, 0.05), HERE, Origin(0, "abc"), tmp_path)
    other = nn.Linear(3, 2)
    with pytest.raises(InputError, match="is of another model"):
        train("t", other, Numbers(), square(other), Schedule(2, 4, 0.05), HERE, FROM_SEED, tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    module = fresh()
    with pytest.raises(InputError, match="the loss is nan at step 0. Take a lower learning rate"):
        train(
            "t",
            module,
            Numbers(),
            lambda batch: module(batch).sum() * torch.nan,
            Schedule(2, 4, 1.0),
            HERE,
            FROM_SEED,
            tmp_path,
        )


def test_the_rate_rises_and_falls():
    schedule = Schedule(100, 1, 1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[9] == rates[10] == 1.0 and 0.05 <= rates[-1] < 0.06


def test_unknown_plans_are_refused():
    with pytest.raises(OptionError, match="Unknown training plan 'cpus'. Did you mean 'cpu'"):
        plan_for("cpus")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="device=cuda:99: PyTorch finds . GPUs here"):
        Machine("cuda:99")
    with pytest.raises(OptionError, match="device=gpu is no device of PyTorch. Allowed: cpu, cuda"):
        Machine("gpu")


def test_a_file_in_the_folder_s_place_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="file is a file; a training needs a folder"):
        train_mini(file, plan_for("cpu"), HERE)


# ---- both stages -----------------------------------------------------------------------------------------------------
def test_the_tower_learns_and_then_stays(small):
    _model, processor = small
    torch.manual_seed(0)
    tower = untrained_model(SMALL)
    seeing = Seeing(tower.model.vision_tower, SMALL.vision_width)
    batch = SeeingData(processor.image_processor, 8, 8)[0]
    loss = seeing.loss(batch)
    loss.backward()
    assert all(p.grad is not None for p in seeing.heads.parameters())
    answering = AnsweringModel(tower)
    assert not {id(p) for p in answering.parameters()} & {id(p) for p in tower.model.vision_tower.parameters()}


@pytest.mark.parametrize("blind", [False, True], ids=["seeing", "blind"])
def test_one_command_trains_a_checkpoint_that_answers(tmp_path, monkeypatch, blind):
    monkeypatch.setattr(mini, "MINI", SMALL)
    plan = TrainingPlan(Schedule(2, 4, 1e-3), *[Schedule(2, 2, 1e-3)] * 5)
    folder = train_mini(tmp_path, plan, HERE, blind=blind)
    assert train_mini(tmp_path, plan, HERE, blind=blind) == folder
    engine = Engine.load("vanilla", Vanilla(), CheckpointOptions(str(folder)), InputOptions(), RunOptions())
    picture = render(scene("page-eval-1")).image
    question = Question("t", "s", 0, lambda: (Message("user", "What is the title?", (picture,)),))
    (answer,) = engine.answer([Request(question, Generation(max_new_tokens=2))])
    assert answer.image_tokens == SMALL.view_tokens
    # As transformers 4.57 writes them; later releases read both.
    names = [name for name in load_file(folder / "model.safetensors") if name.startswith("vision_tower.")]
    assert names and all(name.startswith("vision_tower.vision_model.") for name in names)
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A checkpoint after one step of each stage, and the plan."""
    monkeypatch.setattr(mini, "MINI", SMALL)
    plan = TrainingPlan(*[Schedule(1, 2, 1e-3, warmup=1)] * 6)
    return train_mini(tmp_path / "first", plan, HERE), plan


def test_the_last_course_can_be_given_to_a_checkpoint(trained, tmp_path):
    """It begins with that checkpoint's weights, makes another one of the same form, and says where it comes from."""
    first, plan = trained
    folder = finish_mini(tmp_path / "more", str(first), plan, HERE)
    record, earlier = (json.loads((of / "training.json").read_text()) for of in (folder, first))
    assert record["start"] == {"weights": checkpoint_sha(CheckpointOptions(str(first))), "record": earlier}
    assert set(record["schedules"]) == {"finishing"} and earlier["start"] is None
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        assert (folder / file).read_text() == (first / file).read_text()
    before, after = (load_file(of / "model.safetensors") for of in (first, folder))
    seen = [name for name in before if "vision_tower" in name]
    assert all(torch.equal(before[name], after[name]) for name in seen)
    moved = [(before[name].float() - after[name].float()).abs().max() for name in before if name not in seen]
    assert 0 < max(moved) < 3e-3  # a step of the learning rate, not other weights

    again = finish_mini(tmp_path / "more", str(first), plan, HERE)  # from the state, which is at its end
    assert all(torch.equal(value, after[name]) for name, value in load_file(again / "model.safetensors").items())
    with pytest.raises(InputError, match="finishing.pt is of another origin"):
        finish_mini(tmp_path / "more", str(folder), plan, HERE)


def test_the_last_course_is_for_checkpoints_of_the_small_world(trained, tmp_path, monkeypatch):
    first, plan = trained
    write_checkpoint(tmp_path / "photographs", replace(SMALL, words=TinySettings("llava").words))
    with pytest.raises(InputError, match="photographs has another vocabulary .*`lmms-ca tiny train`"):
        finish_mini(tmp_path / "more", str(tmp_path / "photographs"), plan, HERE)
    monkeypatch.setattr(mini, "MINI", replace(SMALL, hidden_size=64))
    with pytest.raises(InputError, match="mini has other sizes .*`lmms-ca tiny train`"):
        finish_mini(tmp_path / "more", str(first), plan, HERE)
    assert not (tmp_path / "more").exists()
