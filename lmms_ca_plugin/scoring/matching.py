"""GQA's equality and the word overlap that some published levels rest on."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.scoring.inputs import check
from lmms_ca_plugin.scoring.processing import vqa_tool_text


def gqa_accuracy(prediction: str, answer: str, convert: bool = True) -> float:
    """Scores a GQA answer by strict equality: official for GQA.

    Source: GQA `eval.py`; the conversion is the one that LLaVA applies to its predictions before that script.

    Args:
        prediction: The model's answer.
        answer: The gold answer, compared as it is.
        convert: Drop periods at the end of the prediction and lower-case it first.

    Returns:
        1 if equal, else 0.

    Raises:
        TypeError: The prediction or the answer is not a str.
    """
    check("gqa_accuracy", prediction, [answer])
    said = prediction.rstrip(".").lower() if convert else prediction
    return float(said == answer)


def word_overlap(prediction: str, answers: Sequence[str]) -> float:
    """Scores 1 if any word of the prediction is a word of any accepted answer.

    Lenient by design and no measure of accuracy ("not red" is right for "red"): a secondary column, because some
    published levels can be compared with nothing else. Words are those that the VQA tool's processing leaves.
    Source: the rule of `get_score.py` in season1blue/WCD; a blank prediction has no word here and scores 0.

    Args:
        prediction: The model's answer.
        answers: The accepted answers.

    Returns:
        0 or 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: No answers.
    """
    check("word_overlap", prediction, answers)
    accepted = {word for answer in answers for word in vqa_tool_text(answer).split()}
    return float(not accepted.isdisjoint(vqa_tool_text(prediction).split()))
