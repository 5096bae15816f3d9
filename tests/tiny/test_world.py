"""The small world: names give scenes, splits are disjoint, pictures show what the scene says."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.scoring.documents import BENCHMARKS
from lmms_ca_plugin.tiny.world.captions import caption
from lmms_ca_plugin.tiny.world.pictures import pictures
from lmms_ca_plugin.tiny.world.questions import load
from lmms_ca_plugin.tiny.world.questions._asked import names
from lmms_ca_plugin.tiny.world.questions.gqa import RELATIONS, beside
from lmms_ca_plugin.tiny.world.render import PIXELS, render
from lmms_ca_plugin.tiny.world.scenes import KINDS, Scene, Sign, Thing, scene
from lmms_ca_plugin.tiny.world.vocabulary import COLORS

ROW = Scene(
    "by-hand",
    things=(
        Thing("star", "red", "small", 0, 0),
        Thing("circle", "blue", "large", 0, 2),
        Thing("star", "blue", "small", 2, 2),
    ),
)


def test_a_name_is_a_scene():
    assert scene("shapes-eval-7") == scene("shapes-eval-7") != scene("shapes-eval-8")
    assert render(scene("page-eval-7")).image.tobytes() == render(scene("page-eval-7")).image.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_scene_has_an_evaluation_scenes_content(kind):
    """By construction: the content decides. The two samples hold every kind's commonest contents many times over."""
    contents = {split: {scene(f"{kind}-{split}-{n}").content for n in range(1500)} for split in ("train", "eval")}
    assert not contents["train"] & contents["eval"]
    assert all(scene(f"{kind}-{split}-{n}").split == split for split in ("train", "eval") for n in range(50))


def test_content_is_all_that_questions_hang_on():
    same = Scene("another-name", things=ROW.things)
    assert same.content == ROW.content
    assert Scene("by-hand", things=ROW.things, quality="blurred").content != ROW.content
    asked = [[load("gqa").ask(shown, draw) for _ in range(20)] for shown, draw in ((ROW, Random(5)), (same, Random(5)))]
    assert asked[0] == asked[1] and any(asked[0])


@pytest.mark.parametrize("name", ["shapes", "shapes-eval", "shapes-eval-x", "shapes-eval--1"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(InputError, match="names no scene. A name is <kind>-<split>-<number>, e.g. shapes-eval-17."):
        scene(name)


def test_unknown_kinds_and_splits_are_refused():
    with pytest.raises(OptionError, match="Unknown kind of scene 'shape'. Did you mean 'shapes'?"):
        scene("shape-eval-1")
    with pytest.raises(OptionError, match="Unknown split of the small world 'test'"):
        scene("shapes-test-1")


def test_a_row_without_a_scene_is_refused():
    with pytest.raises(InputError, match="has no 'scene'; it has question"):
        pictures({"question": "?"})
    (picture,) = pictures({"scene": "street-eval-1"})
    assert picture.size == (PIXELS, PIXELS) and picture.mode == "RGB"


# ---- pictures --------------------------------------------------------------------------------------------------------
def test_things_have_their_color_where_their_mark_is():
    for number in range(60):
        rendered = render(scene(f"shapes-eval-{number}"))
        pixels = np.asarray(rendered.image, dtype=int)
        for mark in rendered.marks:
            left, top, right, bottom = (max(0, round(x)) for x in mark.box)
            inside = pixels[top:bottom, left:right].reshape(-1, 3)
            near = (np.abs(inside - COLORS[mark.thing.color]).max(-1) <= 15).mean()
            assert near > 0.2, (number, mark)


def test_writing_stays_inside_the_picture():
    for kind in ("street", "page", "snap"):
        for number in range(150):
            for mark in render(scene(f"{kind}-train-{number}")).marks:
                left, top, right, bottom = mark.box
                assert 0 <= top < bottom <= PIXELS and (not mark.text or 0 <= left < right <= PIXELS), (kind, number)


def test_nothing_can_be_made_out_where_a_snapshot_failed():
    failed = Counter()
    for number in range(200):
        shown = scene(f"snap-train-{number}")
        if shown.quality != "sharp":
            rendered = render(shown)
            spread = np.asarray(rendered.image, dtype=int).std()
            assert not rendered.marks and spread < 30
            failed[shown.quality] += 1
    assert len(failed) == 3


# ---- questions -------------------------------------------------------------------------------------------------------
def test_a_description_fits_one_thing():
    star, circle, other = ROW.things
    assert names(star, ROW.things) == ["red shape", "red star", "small red shape"]
    assert names(circle, ROW.things) == ["circle", "large shape", "blue circle", "large circle", "large blue shape"]
    assert names(other, ROW.things, hidden="color") == []


def test_beside_is_in_the_row_or_column_and_the_only_thing_on_that_side():
    star, circle, other = ROW.things
    found = {relation: beside(ROW, circle, relation) for relation in RELATIONS}
    assert found == {"to the left of": star, "to the right of": None, "above": None, "below": other}
    assert beside(ROW, other, "above") is None  # the star is above it, too
    assert beside(ROW, star, "below") is None  # not in its column


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_most_annotators_are_right(benchmark):
    maker, draw, disagreed = load(benchmark), Random(1), 0
    for number in range(300):
        kind = draw.choices(tuple(maker.KINDS), tuple(maker.KINDS.values()))[0]
        asked = maker.ask(scene(f"{kind}-train-{number}"), draw)
        if asked is None or benchmark in ("gqa", "docvqa"):
            continue
        assert len(asked.votes) == 10 and asked.votes.count(asked.answer) >= 7
        disagreed += len(set(asked.votes)) > 1
    assert disagreed or benchmark in ("gqa", "docvqa")


def test_answers_by_hand():
    """Every question that is asked of one scene, against what a person reads off it."""
    expected = {
        "What color is the circle?": "blue",
        "What is to the left of the circle?": "star",
        "What color is the shape to the left of the circle?": "red",
        "What is below the circle?": "star",
        "Is the red star above the circle?": None,  # the same row: not asked
        "Is the circle on the left or on the right of the red star?": "right",
        "Do the circle and the red star have the same size?": "no",
        "How many stars are there?": "2",
        "How many blue shapes are there?": "2",
        "Is there a red star?": "yes",
        "Is there a red circle?": "no",
        "What is at the bottom right?": "star",
        "Which animal has the color of the circle?": "whale",
        "In which month is the festival of the large shape?": "january",
        "How many corners does the red shape have?": "10",
    }
    draw, said = Random(0), {}
    for benchmark in ("gqa", "vqav2", "okvqa"):
        for _ in range(4000):
            asked = load(benchmark).ask(ROW, draw)
            if asked is not None:
                assert said.setdefault(asked.question, asked.answer) == asked.answer
    assert {question: said.get(question) for question in expected} == expected


def test_signs_and_pages_are_read_as_they_are_written():
    street = Scene("s", signs=(Sign("STOP", "red", 0), Sign("42", "blue", 2)))
    draw = Random(0)
    asked = {a.question: a.answer for a in (load("textvqa").ask(street, draw) for _ in range(200))}
    assert asked["what does the red sign say?"] == asked["what word is on the top sign?"] == "stop"
    assert asked["what number is on the blue sign?"] == "42"
    page = scene("page-eval-3")
    values = {field.label.lower(): field.value for field in page.fields} | {"title": page.title}
    for _ in range(50):
        found = load("docvqa").ask(page, draw)
        assert found.answer == values[found.kind]


def test_what_a_snapshot_does_not_show_is_unanswerable():
    draw = Random(0)
    blurred = Scene("b", things=(Thing("star", "red", "large", 1, 1),), quality="blurred")
    sharp = Scene("c", things=blurred.things)
    assert {a.answer for a in (load("vizwiz").ask(blurred, draw) for _ in range(60)) if a} == {"unanswerable"}
    answers = {(a.kind, a.answer) for a in (load("vizwiz").ask(sharp, draw) for _ in range(200)) if a}
    assert answers == {("color", "red"), ("what", "star"), ("says", "unanswerable")}


def test_a_caption_names_everything():
    assert caption(ROW) == "a small red star, a large blue circle, a small blue star"
    assert caption(Scene("d", quality="dark")) == "a dark picture"
    assert caption(Scene("s", signs=(Sign("OCEAN", "orange", 1),))) == "an orange sign ocean"
