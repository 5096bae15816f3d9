"""Answer processing: the text steps that the official VQA scorers share, each with its quirks.

Source: GT-Vision-Lab/VQA `vqaEval.py` and facebookresearch/mmf `m4c_evaluators.py`. The quirks are kept, because a
score that deviates from the official code is no official score:

* whether a punctuation mark is removed or becomes a space depends on the whole input, not on that mark's place;
* a period goes unless a digit follows it: the look-behind for a digit before it is misspelt there and has no effect;
* only the first 32 periods go: the scripts hand `re.UNICODE`, whose value is 32, to `re.sub` as its count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from lmms_ca_plugin.scoring.words import ARTICLES, CONTRACTIONS, NUMBER_WORDS

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = int(re.UNICODE)
_KEPT = 2**16
"""Texts whose form is kept: ten annotators and three metrics ask for the same few words over and over."""


def tidy(text: str) -> str:
    """Turns line breaks and tabs into spaces and strips both ends.

    Args:
        text: Any answer.

    Returns:
        The answer on one line.
    """
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(_KEPT)
def strip_punctuation(text: str) -> str:
    """Removes 21 punctuation marks and periods, or replaces the marks by spaces.

    Args:
        text: A tidied answer.

    Returns:
        The answer without them. A mark is removed if it stands next to a space anywhere in `text`, or if `text` holds
        digit, comma, digit anywhere; otherwise it becomes a space.
    """
    remove_all = _DIGITS_WITH_COMMA.search(text) is not None
    out = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if remove_all or beside_space else " ")
    return _PERIOD.sub("", out, count=_MOST_PERIODS)


def normalize_words(text: str, contractions: Mapping[str, str] = CONTRACTIONS) -> str:
    """Lower-cases, writes number words as digits, drops articles and completes contractions.

    Args:
        text: An answer without punctuation.
        contractions: Misspelt to full form.

    Returns:
        The words, joined by single spaces.
    """
    numbered = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(contractions.get(word, word) for word in numbered if word not in ARTICLES)


def vqa_tool_text(text: str, contractions: Mapping[str, str] = CONTRACTIONS) -> str:
    """Processes an answer as GT-Vision-Lab/VQA does where the annotators disagree.

    Args:
        text: Any answer.
        contractions: Misspelt to full form; the VizWiz API has its own table.

    Returns:
        The processed answer.
    """
    return normalize_words(strip_punctuation(tidy(text)), contractions)


@lru_cache(_KEPT)
def evalai_text(text: str) -> str:
    """Processes an answer as EvalAI and m4c do: all commas and question marks go first, and `'s` is split off.

    Args:
        text: Any answer.

    Returns:
        The processed answer.
    """
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return vqa_tool_text(plain)
