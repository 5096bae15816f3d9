"""ANLS, the average normalised Levenshtein similarity of the document benchmarks.

Source: the evaluation script of the Robust Reading Competition's challenge 17 (DocVQA). Two of its habits differ from
the papers and are kept: a similarity of exactly 0.5 stays, and the length that normalises the distance is that of the
raw strings while the distance is that of the cleaned ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring.inputs import check


def _levenshtein(a: str, b: str) -> int:
    """Counts the insertions, deletions and substitutions that turn `a` into `b`."""
    above = list(range(len(b) + 1))
    for row, letter in enumerate(a, start=1):
        left = row
        current = [left]
        for column, other in enumerate(b, start=1):
            left = min(above[column] + 1, left + 1, above[column - 1] + (letter != other))
            current.append(left)
        above = current
    return above[-1]


def _clean(text: str) -> str:
    """Strips, lower-cases and collapses white space."""
    return " ".join(text.strip().lower().split())


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Scores a DocVQA answer by its similarity to the nearest accepted answer: official for DocVQA.

    Args:
        prediction: The model's answer.
        answers: The accepted answers.
        threshold: Similarities below it count as 0.

    Returns:
        0, or a similarity from `threshold` to 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: No answers, or a threshold outside 0 to 1.
    """
    check("anls", prediction, answers)
    if not 0 <= threshold <= 1:
        raise InputError(f"anls: the threshold is {threshold}, allowed is 0 to 1.")
    distances = []
    for answer in answers:
        # upper() because the script measures it there: it lengthens some letters ("ß" becomes "SS")
        length = max(len(answer.upper()), len(prediction.upper()))
        distances.append(_levenshtein(_clean(answer), _clean(prediction)) / length if length else 0.0)
    similarity = 1 - min(distances)
    return similarity if similarity >= threshold else 0.0
