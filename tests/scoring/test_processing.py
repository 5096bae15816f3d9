"""The text steps, one fact per line, reasoned from the rule in the module's docstring."""
# ruff: noqa: RUF001 - odd characters are what is tested

import pytest

from lmms_ca_plugin.scoring.processing import evalai_text, normalize_words, strip_punctuation, tidy, vqa_tool_text
from lmms_ca_plugin.scoring.words import ARTICLES, CONTRACTIONS, NUMBER_WORDS, VIZWIZ_CONTRACTIONS

MARKS = list(';/[]"{}()=+\\_-><@`,?!')


def test_there_are_21_marks():
    assert len(set(MARKS)) == 21


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_between_letters_becomes_a_space(mark):
    assert strip_punctuation(f"ab{mark}cd") == "ab cd"


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_beside_a_space_is_removed_everywhere(mark):
    assert strip_punctuation(f"ab{mark}cd {mark}ef") == "abcd ef"
    assert strip_punctuation(f"ab{mark} cd{mark}ef") == "ab cdef"


@pytest.mark.parametrize("mark", MARKS)
def test_digit_comma_digit_removes_every_mark(mark):
    assert strip_punctuation(f"1,000{mark}x") == "1000x"


@pytest.mark.parametrize("kept", list("'’:&#%$*^~|"))
def test_other_marks_are_kept(kept):
    assert strip_punctuation(f"ab{kept}cd") == f"ab{kept}cd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.", "5"),  # the misspelt look-behind does not protect it
        ("3.5", "3.5"),
        (".5", ".5"),
        ("a.b", "ab"),
        ("1.2.3.", "1.2.3"),
        ("...", ""),
        ("mr. smith", "mr smith"),
        ("x.٣", "x.٣"),  # any Unicode digit protects the period before it
        ("." * 32, ""),
        ("." * 33, "."),  # only the first 32 periods go
        ("." * 40 + "a", "........a"),
    ],
)
def test_periods(text, expected):
    assert strip_punctuation(text) == expected


@pytest.mark.parametrize(("word", "digit"), [*NUMBER_WORDS.items(), ("Two", "2"), ("NONE", "0"), ("eleven", "eleven")])
def test_number_words(word, digit):
    assert normalize_words(word) == digit


@pytest.mark.parametrize("article", [*sorted(ARTICLES), "A", "The", "AN"])
def test_articles_are_dropped(article):
    assert normalize_words(f"{article} dog") == "dog"
    assert normalize_words(article) == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # lacks two apostrophes: not in the table
        ("ow's'at", "'ow's'at"),
        ("'ows'at", "'ow's'at"),
        ("'ow'sat", "'ow's'at"),
        ("twas", "'twas"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),  # the table's own slip
        ("somebodyd", "somebodyd"),
        ("lets", "lets"),  # let's and she's are known complete only
        ("shes", "shes"),
        ("im", "im"),  # the official key is "Im" and can never match a lower-cased word
        ("ive", "ive"),
        ("oclock", "o'clock"),
        ("hed", "he'd"),
        ("its", "its"),
    ],
)
def test_contractions(given, expected):
    assert normalize_words(given) == expected
    assert normalize_words(given.upper()) == expected


def test_a_number_word_or_article_is_no_contraction_and_order_is_kept():
    assert normalize_words("The TWO cats dont see a dog") == "2 cats don't see dog"


def test_table_sizes():
    # 120 official keys, of which Id've, I'dve, Im and Ive hold a capital
    assert len(CONTRACTIONS) == len(VIZWIZ_CONTRACTIONS) == 116


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("dont", "don’t"),
        ("don't", "don't"),
        ("aint", "ain't"),
        ("whove", "who've"),
        ("whos", "who’s"),
        ("weve", "we've"),
        ("couldn'tve", "couldn’t’ve"),
        ("couldn’tve", "couldn’tve"),
        ("couldnt’ve", "couldn’t’ve"),
        ("she’s", "she’s"),
        ("somebody’d", "somebodyd"),
    ],
)
def test_vizwiz_has_its_own_apostrophes(given, expected):
    assert normalize_words(given, VIZWIZ_CONTRACTIONS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb", "a b"), ("\ta b\n", "a b"), ("  x  ", "x"), ("a\r\nb", "a\r b"), ("", ""), (" \n\t", "")],
)
def test_tidy(text, expected):
    assert tidy(text) == expected


@pytest.mark.parametrize(
    ("text", "tool", "evalai"),
    [
        ("Yes", "yes", "yes"),
        ("A dog.", "dog", "dog"),
        ("two  cats", "2 cats", "2 cats"),
        ("red,blue", "red blue", "redblue"),
        ("red, blue", "red blue", "red blue"),
        ("red , blue", "red blue", "red blue"),
        ("black/white 1,000", "blackwhite 1000", "black white 1000"),
        ("black/white", "black white", "black white"),
        ("levi's", "levi's", "levi 's"),
        ("LEVI'S", "levi's", "levi 's"),
        ("that's", "that's", "that 's"),
        ("thats", "that's", "that's"),
        ("what?no", "what no", "whatno"),
        ("what? no", "what no", "what no"),
        ("coca-cola", "coca cola", "coca cola"),
        ("coca - cola", "coca cola", "coca cola"),
        ("t-shirt", "t shirt", "t shirt"),
        ("12:30", "12:30", "12:30"),
        ("$4.50", "$4.50", "$4.50"),
        ("1,299.99", "1299.99", "1299.99"),
        ("x,1,2", "x12", "x12"),
        ("(left)", " left ".strip(), "left"),
        ("an/a", "", ""),
        ("the", "", ""),
        ("none", "0", "0"),
        ("one-way", "1 way", "1 way"),
        ("dog\ncat", "dog cat", "dog cat"),
        ("dog\tcat", "dog cat", "dog cat"),
        ("ÉCOLE", "école", "école"),
        ("no!", "no", "no"),
        ("!", "", ""),
        ("a+b", "b", "b"),
        ("a + b", "b", "b"),
    ],
)
def test_whole_processing(text, tool, evalai):
    assert vqa_tool_text(text) == tool
    assert evalai_text(text) == evalai


def test_the_harness_has_the_same_contractions():
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    theirs = EvalAIAnswerProcessor.CONTRACTIONS
    assert {word: full for word, full in theirs.items() if word == word.lower()} == CONTRACTIONS
