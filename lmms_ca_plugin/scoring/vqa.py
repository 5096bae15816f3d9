"""VQA accuracy, by each of the scorers that bear the name.

They are not one function: the same 5,000 TextVQA answers score 61.25 with the m4c scorer and 49.09 with the VQA tool.
Each function below follows one public code; its docstring names it.

Rule of leave-one-out: mean over the annotators i of min(1, matches among the others / 3). One is left out by index;
the official code leaves out by comparing whole annotation records, which is the same as long as the records differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.scoring.inputs import check
from lmms_ca_plugin.scoring.processing import evalai_text, tidy, vqa_tool_text
from lmms_ca_plugin.scoring.words import VIZWIZ_CONTRACTIONS

_ANNOTATORS = 10
_FEWEST_VOTES = 4  # with fewer, even unanimous annotators cannot give 1


def _leave_one_out(matches: int, annotators: int) -> float:
    """Averages min(1, matches among the others / 3) over the annotators, of whom `matches` gave the prediction."""
    seen_by_matching = min(1.0, (matches - 1) / 3)
    seen_by_others = min(1.0, matches / 3)
    return (matches * seen_by_matching + (annotators - matches) * seen_by_others) / annotators


def vqa_accuracy(prediction: str, answers: Sequence[str], votes: bool = True) -> float:
    """Scores an answer with EvalAI processing of both sides: the main column on all six sets.

    Source: the processing of facebookresearch/mmf `m4c_evaluators.py`; leave-one-out for any number of annotators.

    Args:
        prediction: The model's answer.
        answers: The annotators' answers (`votes`), or the accepted alternatives.
        votes: True where every annotator has a vote (VQAv2, OKVQA, VizWiz, TextVQA); False where the list holds
            alternatives (GQA, DocVQA), of which any one is right. The task decides, never the list's length.

    Returns:
        A score from 0 to 1; with `votes=False` either 0 or 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: No answers, or fewer than 4 votes.
    """
    check("vqa_accuracy", prediction, answers, fewest=_FEWEST_VOTES if votes else 1)
    said = evalai_text(prediction)
    matches = sum(evalai_text(answer) == said for answer in answers)
    return _leave_one_out(matches, len(answers)) if votes else float(matches > 0)


def vqa_tool_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Scores an answer as the VQA tool does: official for VQAv2 and OKVQA.

    Source: GT-Vision-Lab/VQA `vqaEval.py`. Text is processed only where the annotators disagree, so "Yes" against ten
    "yes" scores 0.

    Args:
        prediction: The model's answer.
        answers: The annotators' answers.

    Returns:
        A score from 0 to 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: No answers.
    """
    check("vqa_tool_accuracy", prediction, answers)
    said, given = tidy(prediction), [tidy(answer) for answer in answers]
    if len(set(given)) > 1:
        said, given = vqa_tool_text(said), [vqa_tool_text(answer) for answer in given]
    return _leave_one_out(given.count(said), len(given))


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Scores an answer as m4c and EvalAI do: official for TextVQA.

    Source: facebookresearch/mmf `m4c_evaluators.py`.

    Args:
        prediction: The model's answer.
        answers: The ten annotators' answers.

    Returns:
        A score from 0 to 1: 0, 0.3, 0.6, 0.9 or 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: There are not exactly 10 answers.
    """
    check("textvqa_accuracy", prediction, answers)
    if len(answers) != _ANNOTATORS:
        raise InputError(f"textvqa_accuracy: {len(answers)} answers were given, exactly {_ANNOTATORS} are needed.")
    said = evalai_text(prediction)
    return _leave_one_out(sum(evalai_text(answer) == said for answer in answers), _ANNOTATORS)


def vizwiz_accuracy(prediction: str, answers: Sequence[str], leave_one_out: bool = False) -> float:
    """Scores an answer as the VizWiz API does: official for VizWiz.

    Source: the VizWiz API's `vqaEval.py`. It processes the prediction only, with curly apostrophes, and its
    leave-one-out leaves nobody out, so one, two and three matches give 1/3, 2/3 and 1.

    Args:
        prediction: The model's answer.
        answers: The annotators' answers, compared as they are.
        leave_one_out: Score as the corrected copy of the API does, in which one annotator is left out.

    Returns:
        A score from 0 to 1.

    Raises:
        TypeError: The prediction or an answer is not a str.
        InputError: No answers.
    """
    check("vizwiz_accuracy", prediction, answers)
    matches = list(answers).count(vqa_tool_text(prediction, VIZWIZ_CONTRACTIONS))
    return _leave_one_out(matches, len(answers)) if leave_one_out else min(1.0, matches / 3)
