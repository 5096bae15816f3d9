"""GQA's equality, word overlap and ANLS: facts, one per line."""

import pytest

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring import anls, gqa_accuracy, word_overlap


@pytest.mark.parametrize(
    ("prediction", "answer", "strict", "converted"),
    [
        ("yes", "yes", 1, 1),
        ("Yes", "yes", 0, 1),
        ("Yes.", "yes", 0, 1),
        ("yes...", "yes", 0, 1),
        (".yes", "yes", 0, 0),
        ("yes.\n", "yes", 0, 0),
        (" yes", "yes", 0, 0),
        ("yes ", "yes", 0, 0),
        ("t-shirt", "t-shirt", 1, 1),
        ("tshirt", "t-shirt", 0, 0),
        ("t shirt", "t-shirt", 0, 0),
        ("the dog", "dog", 0, 0),
        ("Dog", "Dog", 1, 0),  # the gold answer is compared as it is
        ("", "", 1, 1),
        ("", "yes", 0, 0),
        ("no!", "no", 0, 0),
    ],
)
def test_gqa(prediction, answer, strict, converted):
    assert gqa_accuracy(prediction, answer, convert=False) == strict
    assert gqa_accuracy(prediction, answer) == converted


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("red", ["red"], 1),
        ("not red", ["red"], 1),
        ("a red car", ["blue", "dark red"], 1),
        ("the car", ["the dog"], 0),  # articles are no words here
        ("Two dogs", ["2"], 1),
        ("redder", ["red"], 0),
        ("coca-cola", ["cola"], 1),
        ("", ["red"], 0),
        ("", ["a"], 0),
        ("the", ["a"], 0),
        ("x", [""], 0),
        ("yes, it is", ["yes"], 1),
    ],
)
def test_word_overlap(prediction, answers, expected):
    assert word_overlap(prediction, answers) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("abcd", ["abcd"], 1),
        ("ABCD", ["abcd"], 1),
        ("abcx", ["abcd"], 3 / 4),
        ("abc", ["abcd"], 3 / 4),
        ("abcde", ["abcd"], 4 / 5),
        ("ab", ["ax"], 1 / 2),  # exactly the threshold stays
        ("abc", ["axy"], 0),  # a third is below it
        ("acbd", ["abcd"], 1 / 2),  # a swap costs two
        ("abcd", ["wxyz"], 0),
        ("12.5", ["13.5"], 3 / 4),
        ("  12.5  ", ["13.5"], 7 / 8),  # the raw length normalises
        ("12.5", ["13.5   "], 6 / 7),
        ("coca  cola", ["coca cola"], 1),
        ("coca\ncola", ["coca cola"], 1),
        ("a", [""], 0),
        ("", ["a"], 0),
        ("", [""], 1),
        ("   ", [""], 1),
        ("abcd", ["wxyz", "abcx"], 3 / 4),  # the nearest answer counts
        ("abcd", ["abcx", "abcd"], 1),
        ("straße", ["strasse"], 5 / 7),  # upper-casing makes both 7 long; two letters differ
        ("kitten", ["sitting"], 4 / 7),
        ("sunday", ["saturday"], 5 / 8),
        ("intention", ["execution"], 0),  # 5 of 9 differ
    ],
)
def test_anls(prediction, answers, expected):
    assert anls(prediction, answers) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("threshold", "expected"), [(0, 1 / 3), (1 / 3, 1 / 3), (0.34, 0), (0.5, 0), (1, 0)])
def test_anls_threshold(threshold, expected):
    assert anls("abc", ["axy"], threshold=threshold) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_anls_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        anls("abc", ["abc"], threshold=threshold)
