"""What every scorer demands of its input, said in one place."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.errors import InputError


def check(scorer: str, prediction: str, answers: Sequence[str], fewest: int = 1) -> None:
    """Refuses input that a scorer could only turn into a wrong number.

    Args:
        scorer: The scorer's name, for the message.
        prediction: The model's answer.
        answers: The annotators' answers.
        fewest: How many answers the scorer needs.

    Raises:
        TypeError: `prediction` is not a str, or `answers` is not a sequence of str.
        InputError: There are too few answers.
    """
    if not isinstance(prediction, str):
        raise TypeError(
            f"{scorer}: the prediction is {type(prediction).__name__} ({prediction!r}), not str. "
            "A model that gave no answer has not answered '': record the sample as failed instead of scoring it."
        )
    if isinstance(answers, str) or not isinstance(answers, Sequence):
        raise TypeError(f"{scorer}: the answers are {type(answers).__name__} ({answers!r}), not a list of str.")
    for answer in answers:
        if not isinstance(answer, str):
            raise TypeError(f"{scorer}: an answer is {type(answer).__name__} ({answer!r}), not str.")
    if len(answers) < fewest:
        raise InputError(
            f"{scorer}: {len(answers)} answers were given, at least {fewest} are needed. "
            "A split without answers (a test split) cannot be scored."
        )
