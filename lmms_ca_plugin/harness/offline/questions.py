"""The suite's questions on the pictures, written by one author looking at them: `questions.jsonl`.

Ten "votes" of a question are what that author thinks ten people would say; they are no human votes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class SuiteQuestion:
    """One question.

    Args:
        task: `gqa`, `vqav2`, `ok_vqa`, `vizwiz_vqa`, `textvqa` or `docvqa`.
        picture: Name of the picture.
        question: Its text.
        split: `"val"` (with answers) or `"test"` (without, as on the hub).
        answers: Ten votes, or the accepted alternatives (gqa, docvqa); empty in the test split.
        full_answer: The answer as a sentence (gqa).
    """

    task: str
    picture: str
    question: str
    split: str
    answers: tuple[str, ...]
    full_answer: str


def load_questions(task: str, split: str) -> list[SuiteQuestion]:
    """Reads the questions of one task and split, in the file's order."""
    text = (files("lmms_ca_plugin.harness.offline") / "questions.jsonl").read_text(encoding="utf-8")
    questions = [_question(json.loads(line)) for line in text.splitlines()]
    return [question for question in questions if (question.task, question.split) == (task, split)]


def _question(entry: dict[str, Any]) -> SuiteQuestion:
    counted = [answer for answer, count in entry.get("votes", {}).items() for _ in range(count)]
    return SuiteQuestion(
        task=entry["task"],
        picture=entry["picture"],
        question=entry["question"],
        split=entry.get("split", "val"),
        answers=tuple(counted or entry.get("answers", ())),
        full_answer=entry.get("full_answer", ""),
    )
