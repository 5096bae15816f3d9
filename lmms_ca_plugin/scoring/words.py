"""The word tables of the VQA answer processing: contractions, number words, articles.

Source: GT-Vision-Lab/VQA `vqaEval.py`; facebookresearch/mmf `m4c_evaluators.py` carries the same tables.

Rule: a misspelt contraction lacks one apostrophe (`dont`, `couldn'tve`) and is mapped to the full form. Only the full
forms are listed; the misspelt ones follow by leaving out one apostrophe at a time. The official table has three
entries that do not follow the rule; they are listed as they are. Its keys with capitals are left out, because words
are lower-cased before they are looked up, so that those keys can never match.
"""

from __future__ import annotations

_FULL_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905 - one word per line would hide the table

# `somebody'd` loses its apostrophe, and `let's` and `she's` are only known when already complete.
_IRREGULAR = {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}


def _misspellings(full: str) -> list[str]:
    """Lists the forms of a contraction that lack exactly one of its apostrophes."""
    return [full[:i] + full[i + 1 :] for i, letter in enumerate(full) if letter == "'"]


CONTRACTIONS: dict[str, str] = {bad: full for full in _FULL_FORMS for bad in _misspellings(full)} | _IRREGULAR
"""Misspelt contraction to full form, with the straight apostrophe."""

_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_STRAIGHT_IN_VIZWIZ = frozenset({"aint", "arent", "cant", "couldve", "couldnt", "weve", "wheres", "whove"})
_STRAIGHT_KEY_IN_VIZWIZ = frozenset({"couldn'tve", "hadn'tve"})


def _vizwiz_entry(bad: str, full: str) -> tuple[str, str]:
    """Writes a table entry with the apostrophes that the VizWiz API has."""
    if bad in _STRAIGHT_IN_VIZWIZ:
        return bad, full
    return bad if bad in _STRAIGHT_KEY_IN_VIZWIZ else bad.replace("'", _CURLY), full.replace("'", _CURLY)


VIZWIZ_CONTRACTIONS: dict[str, str] = dict(_vizwiz_entry(*entry) for entry in CONTRACTIONS.items())
"""The same table as the VizWiz API has it: curly apostrophes, but for ten entries in which a straight one is left."""

_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

NUMBER_WORDS: dict[str, str] = {word: str(value) for value, word in enumerate(_COUNTED)} | {"none": "0"}
"""Number words up to ten, and `none`, to digits."""

ARTICLES: frozenset[str] = frozenset({"a", "an", "the"})
"""Words that are dropped."""
