"""One row of each of the six sets, all columns but the picture, filled as the hub's rows are.

Rows without answers are those of a test split: null, except TextVQA, whose loader fills in ten empty strings
(facebook/textvqa, textvqa.py). The columns are in `schemas.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

# The first words by which VQAv2 sorts its questions, as far as ours begin with them.
_QUESTION_TYPES = ("what color is the", "what is the", "what is", "how many", "is the", "is this", "is it", "is there")
_REFUSALS = ("unanswerable", "unsuitable")


def answer_type(answer: str) -> str:
    """Sorts an answer as VQAv2 does: `yes/no`, `number` or `other`."""
    return "yes/no" if answer in ("yes", "no") else "number" if answer.isdigit() else "other"


def most_frequent(answers: Sequence[str]) -> str:
    """Names the most frequent answer, of equals the first."""
    return Counter(answers).most_common(1)[0][0]


def gqa(question_id: str, image_id: str, question: str, answer: str, full_answer: str) -> Row:
    """A row of GQA's instructions; its picture lies in a table of its own."""
    return {
        "id": question_id,
        "imageId": image_id,
        "question": question,
        "answer": answer,
        "fullAnswer": full_answer,
        "isBalanced": True,
        "groups": {"global": None, "local": None},
        "entailed": "",
        "equivalent": "",
        "types": {
            "structural": "verify" if answer in ("yes", "no") else "query",
            "semantic": None,
            "detailed": None,
        },
        "annotations": {"question": [], "answer": [], "fullAnswer": []},
        "semantic": [],
        "semanticStr": "",
    }


def vqav2(question_id: int, image_id: int, question: str, votes: Sequence[str]) -> Row:
    """A row of VQAv2; no votes make a row of the test split."""
    common, lower = most_frequent(votes) if votes else None, question.lower()
    begins = next((t for t in _QUESTION_TYPES if lower.startswith(t)), "none of the above")
    return {
        "question_type": begins if votes else None,
        "multiple_choice_answer": common,
        "answers": [
            {"answer": vote, "answer_confidence": "yes", "answer_id": number}
            for number, vote in enumerate(votes, start=1)
        ]
        or None,
        "image_id": image_id,
        "answer_type": answer_type(common) if common else None,
        "question_id": question_id,
        "question": question,
    }


def okvqa(question_id: str, question: str, votes: Sequence[str]) -> Row:
    """A row of OK-VQA; the last digit of the id tells the questions on one picture apart."""
    return {
        "question_id": question_id,
        "question": question,
        "answers": list(votes),
        "question_type": "other",
        "answer_type": answer_type(votes[0]),
    }


def vizwiz(question_id: str, question: str, votes: Sequence[str]) -> Row:
    """A row of VizWiz; no votes make a row of the test split."""
    refused = bool(votes) and most_frequent(votes) in _REFUSALS
    return {
        "question_id": question_id,
        "question": question,
        "answers": list(votes) or None,
        "category": None if not votes else "unanswerable" if refused else "other",
    }


def textvqa(
    question_id: int, image_id: str, question: str, votes: Sequence[str], size: tuple[int, int], split: str
) -> Row:
    """A row of TextVQA; `size` is the picture's width and height, no votes make a row of the test split."""
    return {
        "image_id": image_id,
        "question_id": question_id,
        "question": question.lower(),
        "question_tokens": re.findall(r"\w+", question.lower()),
        "image_width": size[0],
        "image_height": size[1],
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "answers": list(votes) or [""] * 10,
        "image_classes": [],
        "set_name": split,
        "ocr_tokens": [],
    }


def docvqa(
    question_id: int, question: str, kinds: Sequence[str], document: int, answers: Sequence[str], split: str
) -> Row:
    """A row of DocVQA; kinds and answers are null in the test split."""
    tested = split == "test"
    return {
        "questionId": str(question_id),
        "question": question,
        "question_types": None if tested else list(kinds),
        "docId": document,
        "ucsf_document_id": f"page{document:04d}",
        "ucsf_document_page_no": "1",
        "answers": None if tested else list(answers),
        "data_split": split,
    }
