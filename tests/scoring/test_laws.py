"""What holds for every scorer and every text."""
# ruff: noqa: RUF001 - odd characters are what is tested

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_ca_plugin import scoring
from lmms_ca_plugin.scoring.processing import evalai_text, vqa_tool_text

ON_LISTS = {
    "vqa_accuracy": scoring.vqa_accuracy,
    "vqa_exact": partial(scoring.vqa_accuracy, votes=False),
    "vqa_tool_accuracy": scoring.vqa_tool_accuracy,
    "textvqa_accuracy": scoring.textvqa_accuracy,
    "vizwiz_accuracy": scoring.vizwiz_accuracy,
    "vizwiz_accuracy_loo": partial(scoring.vizwiz_accuracy, leave_one_out=True),
    "anls": scoring.anls,
    "word_overlap": scoring.word_overlap,
}
ODD = st.text(alphabet="aAbtheno e1,.'’-/?!\n\t0ßİ٣", max_size=12)
PLAIN = st.sampled_from(["yes", "no", "Yes.", "two", "2", "a dog", "dog", "don't", "dont", "red,blue", ""])
TEXT = ODD | PLAIN | st.text(max_size=20)
TEN = st.lists(TEXT, min_size=10, max_size=10)


@pytest.mark.parametrize("name", ON_LISTS)
@given(prediction=TEXT, answers=TEN, data=st.data())
def test_range_order_and_inputs(name, prediction, answers, data):
    scorer, before = ON_LISTS[name], list(answers)
    score = scorer(prediction, answers)
    assert 0 <= score <= 1
    assert answers == before
    assert scorer(prediction, tuple(data.draw(st.permutations(answers)))) == score
    assert scorer(prediction, answers) == score


@given(prediction=TEXT, answer=TEXT, convert=st.booleans())
def test_gqa_is_0_or_1(prediction, answer, convert):
    assert scoring.gqa_accuracy(prediction, answer, convert=convert) in (0, 1)


@given(answers=TEN, more=TEXT)
def test_one_more_match_never_hurts(answers, more):
    swapped = [more, *answers[1:]]
    assert scoring.vqa_accuracy(more, swapped) >= scoring.vqa_accuracy(more, answers) - 1e-12


@given(text=TEXT)
def test_an_answer_given_by_all_is_right(text):
    ten = [text] * 10
    for name in ("vqa_accuracy", "vqa_exact", "vqa_tool_accuracy", "textvqa_accuracy", "anls"):
        assert ON_LISTS[name](text, ten) == 1, name


@given(text=TEXT)
def test_processing_leaves_no_double_spaces_and_no_capitals(text):
    for process in (evalai_text, vqa_tool_text):
        assert process(text) == " ".join(process(text).split())
        assert process(text) == process(text).lower() or "İ" in text  # whose lower case is two letters


@given(prediction=TEXT, answers=TEN)
def test_leaving_one_out_never_helps_vizwiz(prediction, answers):
    left_out = scoring.vizwiz_accuracy(prediction, answers, leave_one_out=True)
    assert left_out <= scoring.vizwiz_accuracy(prediction, answers)


@pytest.mark.parametrize("name", ON_LISTS)
@pytest.mark.parametrize("prediction", [None, 3, ["dog"], b"dog"])
def test_a_prediction_that_is_no_text_is_refused(name, prediction):
    with pytest.raises(TypeError, match="prediction is"):
        ON_LISTS[name](prediction, ["dog"] * 10)


@pytest.mark.parametrize("name", ON_LISTS)
def test_missing_answers_are_refused(name):
    with pytest.raises(ValueError, match="0 answers were given"):
        ON_LISTS[name]("dog", [])
    with pytest.raises(TypeError, match="answers are NoneType"):
        ON_LISTS[name]("dog", None)
    with pytest.raises(TypeError, match="answers are str"):
        ON_LISTS[name]("dog", "dog")
    with pytest.raises(TypeError, match="an answer is NoneType"):
        ON_LISTS[name]("dog", ["dog"] * 9 + [None])


def test_gqa_refuses_what_is_no_text():
    with pytest.raises(TypeError, match="prediction is NoneType"):
        scoring.gqa_accuracy(None, "yes")
    with pytest.raises(TypeError, match="an answer is NoneType"):
        scoring.gqa_accuracy("yes", None)
