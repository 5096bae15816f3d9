"""Scorers for sets in which every annotator has a vote: facts, one per line."""
# ruff: noqa: RUF001 - odd characters are what is tested

import pytest
from votes import votes

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring import textvqa_accuracy, vizwiz_accuracy, vqa_accuracy, vqa_tool_accuracy

LEAVE_ONE_OUT = [0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1]
NOBODY_LEFT_OUT = [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("matches", range(11))
def test_ten_annotators(matches):
    answers = ["dog"] * matches + ["cat"] * (10 - matches)
    for scorer in (vqa_accuracy, vqa_tool_accuracy, textvqa_accuracy):
        assert scorer("dog", answers) == pytest.approx(LEAVE_ONE_OUT[matches], abs=1e-12), scorer.__name__
    assert vizwiz_accuracy("dog", answers) == pytest.approx(NOBODY_LEFT_OUT[matches], abs=1e-12)
    assert vizwiz_accuracy("dog", answers, leave_one_out=True) == pytest.approx(LEAVE_ONE_OUT[matches], abs=1e-12)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # n annotators, m matches: (m * min(1, (m-1)/3) + (n-m) * min(1, m/3)) / n
        ("dog:1", 0),
        ("dog:2", 1 / 3),
        ("dog:1 cat:1", 1 / 6),
        ("dog:2 cat:1", 4 / 9),
        ("dog:3", 2 / 3),
        ("dog:4", 1),
        ("dog:3 cat:1", 3 / 4),
        ("dog:2 cat:2", 1 / 2),
        ("dog:1 cat:3", 1 / 4),
        ("dog:3 cat:2", 4 / 5),
        ("dog:2 cat:5", 4 / 7),
        ("dog:1 cat:19", 19 / 60),
        ("dog:3 cat:17", 19 / 20),
        ("cat:7", 0),
    ],
)
def test_other_numbers_of_annotators(answers, expected):
    given = votes(answers)
    assert vqa_tool_accuracy("dog", given) == pytest.approx(expected, abs=1e-12)
    assert vizwiz_accuracy("dog", given, leave_one_out=True) == pytest.approx(expected, abs=1e-12)
    if len(given) >= 4:
        assert vqa_accuracy("dog", given) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "answers", "tool", "evalai", "vizwiz"),
    [
        # unanimous annotators: the tool leaves the text alone
        ("Yes", "yes:10", 0, 1, 1),
        ("yes", "Yes:10", 0, 1, 0),
        ("yes.", "yes:10", 0, 1, 1),
        (" yes\n", "yes:10", 1, 1, 1),
        ("two", "2:10", 0, 1, 1),
        ("none", "0:10", 0, 1, 1),
        ("the dog", "dog:10", 0, 1, 1),
        ("don't", "dont:10", 0, 1, 0),
        ("t-shirt", "t-shirt:10", 1, 1, 0),
        # one dissenter is enough
        ("Yes", "yes:9 no:1", 1, 1, 1),
        ("yes", "Yes:9 no:1", 1, 1, 0),
        ("YES!", "yes:8 no:2", 1, 1, 1),
        ("no", "yes:8 no:2", 0.6, 0.6, 2 / 3),
        ("two", "2:3 two:3 3:4", 1, 1, 1),
        ("dog", "a_dog:3 the_dog:1 cat:6", 1, 1, 0),
        ("coca cola", "coca-cola:6 coke:4", 1, 1, 0),
        ("coca-cola", "coca_cola:6 coke:4", 1, 1, 1),
        ("dont walk", "don't_walk:6 stop:4", 1, 1, 0),
        ("dont walk", "don’t_walk:6 stop:4", 0, 0, 1),
        ("aint", "ain't:3 no:7", 0.9, 0.9, 1),
        # commas and 's: where m4c and the tool part
        ("red,blue", "red_blue:5 red:5", 1, 0, 1),
        ("red,blue", "redblue:5 red:5", 0, 1, 0),
        ("levi 's", "levi's:5 jeans:5", 0, 1, 0),
        ("levi's", "levi's:5 jeans:5", 1, 1, 1),
        ("that's", "thats:5 it:5", 1, 0, 0),
        ("black/white 1,000", "blackwhite_1000:5 x:5", 1, 0, 1),
        ("5.", "5:6 6:4", 1, 1, 1),
        ("3.5", "35:6 6:4", 0, 0, 0),
        # a blank follows the official code: an answer that is only an article becomes blank as well
        ("", "a:4 b:6", 1, 1, 0),
        ("the", "a:2 b:8", 0.6, 0.6, 0),
        ("", "dog:10", 0, 0, 0),
        ("!", "?:5 dog:5", 1, 1, 0),
        # words, not letters
        ("dogs", "dog:10", 0, 0, 0),
        ("dog cat", "cat_dog:9 cat:1", 0, 0, 0),
        ("école", "École:6 school:4", 1, 1, 0),
        ("Unanswerable", "unanswerable:7 dog:3", 1, 1, 1),
        ("x" * 5000, "dog:9 cat:1", 0, 0, 0),
    ],
)
def test_where_the_scorers_part(prediction, answers, tool, evalai, vizwiz):
    given = votes(answers)
    assert vqa_tool_accuracy(prediction, given) == pytest.approx(tool, abs=1e-12)
    assert textvqa_accuracy(prediction, given) == pytest.approx(evalai, abs=1e-12)
    assert vqa_accuracy(prediction, given) == pytest.approx(evalai, abs=1e-12)
    assert vizwiz_accuracy(prediction, given) == pytest.approx(vizwiz, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "alternatives", "expected"),
    [
        ("12.5", ["12.5", "$12.5"], 1),
        ("The Dog", ["dog"], 1),
        ("dog", ["cat"], 0),
        ("dog", ["cat", "a dog."], 1),
        ("dog", ["dog", "cat", "bird", "fish"], 1),  # four alternatives are still no votes
        ("dogs", ["dog"], 0),
    ],
)
def test_alternatives(prediction, alternatives, expected):
    assert vqa_accuracy(prediction, alternatives, votes=False) == expected


def test_the_task_chooses_not_the_length():
    ten_alternatives = ["dog"] + [f"word{i}" for i in range(9)]
    assert vqa_accuracy("dog", ten_alternatives, votes=False) == 1
    assert vqa_accuracy("dog", ten_alternatives) == pytest.approx(0.3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_votes_are_refused_with_their_number(count):
    with pytest.raises(InputError, match=f"{count} answers were given, at least 4"):
        vqa_accuracy("dog", ["dog"] * count)


@pytest.mark.parametrize("count", [1, 9, 11, 20])
def test_textvqa_needs_exactly_ten(count):
    with pytest.raises(ValueError, match=f"{count} answers were given, exactly 10"):
        textvqa_accuracy("dog", ["dog"] * count)
