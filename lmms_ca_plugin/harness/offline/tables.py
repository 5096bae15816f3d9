"""The suite's rows, one function per data set, in the form the hub gives them.

Test splits carry what the hub's carry: no answers (null), except TextVQA, whose loader fills in ten empty strings
(facebook/textvqa, textvqa.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from datasets import Features
from PIL import Image

from lmms_ca_plugin.harness.offline import schemas
from lmms_ca_plugin.harness.offline.documents import Document
from lmms_ca_plugin.harness.offline.pictures import Picture
from lmms_ca_plugin.harness.offline.questions import Question, load_questions

Row = dict[str, Any]

# The first words by which VQAv2 sorts its questions, as far as ours begin with them.
_QUESTION_TYPES = ("what color is the", "what is the", "what is", "how many", "is the", "is this", "is it", "is there")


@dataclass(frozen=True)
class Table:
    """One parquet file of a data set."""

    config: str
    split: str
    folder: str
    features: Features
    rows: list[Row]


@dataclass(frozen=True)
class Source:
    """What all tables are made from."""

    pictures: dict[str, Picture]
    documents: list[Document]


def data_sets(source: Source) -> dict[str, list[Table]]:
    """Builds all tables.

    Args:
        source: Pictures and rendered pages; the last page is the test split's.

    Returns:
        Tables by the data set's name below `lmms-lab-encoder/`.
    """
    return {
        "GQA": _gqa(source),
        "VQAv2": [
            Table("default", "validation", "data", schemas.VQAV2, list(_vqav2(source, "val"))),
            Table("default", "test", "data", schemas.VQAV2, list(_vqav2(source, "test"))),
        ],
        "OK-VQA": [Table("default", "val2014", "data", schemas.OK_VQA, list(_ok_vqa(source)))],
        "VizWiz-VQA": [
            Table("default", split, "data", schemas.VIZWIZ, list(_vizwiz(source, split))) for split in ("val", "test")
        ],
        "textvqa": [
            Table("default", "validation", "data", schemas.TEXTVQA, list(_textvqa(source, "val"))),
            Table("default", "test", "data", schemas.TEXTVQA, list(_textvqa(source, "test"))),
        ],
        "DocVQA": [
            Table("DocVQA", "validation", "DocVQA", schemas.DOCVQA, list(_docvqa_val(source))),
            Table("DocVQA", "test", "DocVQA", schemas.DOCVQA, list(_docvqa_test(source))),
        ],
    }


def _image(content: bytes, name: str) -> Row:
    return {"bytes": content, "path": name}


def _asked(source: Source, task: str, split: str) -> Iterator[tuple[Question, Picture, int]]:
    """Questions with their picture and their place among the questions on that picture, from 0."""
    seen: Counter[str] = Counter()
    for question in load_questions(task, split):
        yield question, source.pictures[question.picture], seen[question.picture]
        seen[question.picture] += 1


def _answer_type(answer: str) -> str:
    return "yes/no" if answer in ("yes", "no") else "number" if answer.isdigit() else "other"


def _gqa(source: Source) -> list[Table]:
    rows = []
    shown = {}
    for question, picture, place in _asked(source, "gqa", "val"):
        image_id, (answer,) = f"n{picture.number}", question.answers
        shown[image_id] = picture
        rows.append(
            {
                "id": f"2{picture.number:04d}{place:02d}",
                "imageId": image_id,
                "question": question.question,
                "answer": answer,
                "fullAnswer": question.full_answer,
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
        )
    images = [{"id": key, "image": _image(p.content, p.file_name)} for key, p in shown.items()]
    return [
        Table(name, "testdev", name, features, table)
        for name, features, table in (
            ("testdev_balanced_instructions", schemas.GQA_QUESTIONS, rows),
            ("testdev_balanced_images", schemas.GQA_IMAGES, images),
        )
    ]


def _vqav2(source: Source, split: str) -> Iterator[Row]:
    for question, picture, place in _asked(source, "vqav2", split):
        votes = question.answers
        common = Counter(votes).most_common(1)[0][0] if votes else None
        lower = question.question.lower()
        yield {
            "question_type": next((t for t in _QUESTION_TYPES if lower.startswith(t)), "none of the above")
            if votes
            else None,
            "multiple_choice_answer": common,
            "answers": [
                {"answer": vote, "answer_confidence": "yes", "answer_id": number}
                for number, vote in enumerate(votes, start=1)
            ]
            or None,
            "image_id": picture.number,
            "answer_type": _answer_type(common) if common else None,
            "question_id": picture.number * 1000 + place + (500 if split == "test" else 0),
            "question": question.question,
            "image": _image(picture.content, picture.file_name),
        }


def _ok_vqa(source: Source) -> Iterator[Row]:
    for question, picture, place in _asked(source, "ok_vqa", "val"):
        yield {
            "question_id": f"{picture.number}{place}",
            "image": _image(picture.content, picture.file_name),
            "question": question.question,
            "answers": list(question.answers),
            "question_type": "other",
            "answer_type": _answer_type(question.answers[0]),
        }


def _vizwiz(source: Source, split: str) -> Iterator[Row]:
    for number, (question, picture, _) in enumerate(_asked(source, "vizwiz_vqa", split)):
        votes = list(question.answers) or None
        refusal = votes is not None and Counter(votes).most_common(1)[0][0] in ("unanswerable", "unsuitable")
        yield {
            "question_id": f"VizWiz_{split}_{number:08d}",
            "image": _image(picture.content, picture.file_name),
            "question": question.question,
            "answers": votes,
            "category": None if votes is None else "unanswerable" if refusal else "other",
        }


def _textvqa(source: Source, split: str) -> Iterator[Row]:
    base = 1 if split == "val" else 1001
    for number, (question, picture, _) in enumerate(_asked(source, "textvqa", split), start=base):
        width, height = Image.open(BytesIO(picture.content)).size
        yield {
            "image_id": f"{picture.number:016x}",
            "question_id": number,
            "question": question.question.lower(),
            "question_tokens": re.findall(r"\w+", question.question.lower()),
            "image": _image(picture.content, picture.file_name),
            "image_width": width,
            "image_height": height,
            "flickr_original_url": "",
            "flickr_300k_url": "",
            "answers": list(question.answers) or [""] * 10,
            "image_classes": [],
            "set_name": split,
            "ocr_tokens": [],
        }


def _docvqa_val(source: Source) -> Iterator[Row]:
    for question, picture, place in _asked(source, "docvqa", "val"):
        image = _image(picture.content, picture.file_name)
        yield _document_row(100 * place, question.question, ["free_text"], image, 0, list(question.answers), "val")
    for document in source.documents[:-1]:
        yield from _page(document, "val")


def _docvqa_test(source: Source) -> Iterator[Row]:
    yield from _page(source.documents[-1], "test")


def _page(document: Document, split: str) -> Iterator[Row]:
    image = _image(document.content, f"page_{document.number}.png")
    for place, asked in enumerate(document.questions):
        number = 1000 * document.number + place
        answers = list(asked.answers) if split == "val" else None
        yield _document_row(number, asked.question, [asked.kind], image, document.number, answers, split)


def _document_row(
    number: int, question: str, kinds: list[str], image: Row, document: int, answers: list[str] | None, split: str
) -> Row:
    return {
        "questionId": str(number),
        "question": question,
        "question_types": kinds if split == "val" else None,
        "image": image,
        "docId": document,
        "ucsf_document_id": f"page{document:04d}",
        "ucsf_document_page_no": "1",
        "answers": answers,
        "data_split": split,
    }
