"""The prompt of each set, as the harness writes it: the same words in training and in the tasks."""

from __future__ import annotations

_BRIEF = "\nAnswer the question using a single word or phrase."
_HONEST = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."

INSTRUCTIONS = {
    "gqa": _BRIEF,
    "vqav2": _BRIEF,
    "okvqa": _HONEST + _BRIEF,
    "vizwiz": _HONEST + _BRIEF,
    "textvqa": _BRIEF,
    "docvqa": _BRIEF,
}
"""What follows the question, by set (lmms-eval's `post_prompt`; a test compares it with the YAML files)."""

SENTENCES = (_BRIEF, _HONEST)


def user_text(benchmark: str, question: str) -> str:
    """Writes what the user says.

    Args:
        benchmark: The set.
        question: As the set's rows hold it.

    Returns:
        Question and instruction.
    """
    if benchmark in ("vizwiz", "textvqa"):  # the harness writes these two with one capital at the start
        question = question.capitalize()
    return question + INSTRUCTIONS[benchmark]
