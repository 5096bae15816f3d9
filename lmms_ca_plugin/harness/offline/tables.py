"""The suite's rows, one function per data set, in the form the hub gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from datasets import Features
from PIL import Image

from lmms_ca_plugin.harness.offline.documents import Document
from lmms_ca_plugin.harness.offline.pictures import Picture
from lmms_ca_plugin.harness.offline.questions import SuiteQuestion, load_questions
from lmms_ca_plugin.tiny.benchmarks import rows, schemas
from lmms_ca_plugin.tiny.benchmarks.rows import Row


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


def _asked(source: Source, task: str, split: str) -> Iterator[tuple[SuiteQuestion, Picture, int]]:
    """Questions with their picture and their place among the questions on that picture, from 0."""
    seen: Counter[str] = Counter()
    for question in load_questions(task, split):
        yield question, source.pictures[question.picture], seen[question.picture]
        seen[question.picture] += 1


def _gqa(source: Source) -> list[Table]:
    table, shown = [], {}
    for question, picture, place in _asked(source, "gqa", "val"):
        image_id, (answer,) = f"n{picture.number}", question.answers
        shown[image_id] = picture
        question_id = f"2{picture.number:04d}{place:02d}"
        table.append(rows.gqa(question_id, image_id, question.question, answer, question.full_answer))
    images = [{"id": key, "image": _image(p.content, p.file_name)} for key, p in shown.items()]
    return [
        Table(name, "testdev", name, features, found)
        for name, features, found in (
            ("testdev_balanced_instructions", schemas.GQA_QUESTIONS, table),
            ("testdev_balanced_images", schemas.GQA_IMAGES, images),
        )
    ]


def _vqav2(source: Source, split: str) -> Iterator[Row]:
    for question, picture, place in _asked(source, "vqav2", split):
        question_id = picture.number * 1000 + place + (500 if split == "test" else 0)
        yield _shown(picture, rows.vqav2(question_id, picture.number, question.question, question.answers))


def _ok_vqa(source: Source) -> Iterator[Row]:
    for question, picture, place in _asked(source, "ok_vqa", "val"):
        yield _shown(picture, rows.okvqa(f"{picture.number}{place}", question.question, question.answers))


def _vizwiz(source: Source, split: str) -> Iterator[Row]:
    for number, (question, picture, _) in enumerate(_asked(source, "vizwiz_vqa", split)):
        yield _shown(picture, rows.vizwiz(f"VizWiz_{split}_{number:08d}", question.question, question.answers))


def _textvqa(source: Source, split: str) -> Iterator[Row]:
    base = 1 if split == "val" else 1001
    for number, (question, picture, _) in enumerate(_asked(source, "textvqa", split), start=base):
        size = Image.open(BytesIO(picture.content)).size
        image_id = f"{picture.number:016x}"
        yield _shown(picture, rows.textvqa(number, image_id, question.question, question.answers, size, split))


def _docvqa_val(source: Source) -> Iterator[Row]:
    for question, picture, place in _asked(source, "docvqa", "val"):
        yield _shown(picture, rows.docvqa(100 * place, question.question, ["free_text"], 0, question.answers, "val"))
    for document in source.documents[:-1]:
        yield from _page(document, "val")


def _docvqa_test(source: Source) -> Iterator[Row]:
    yield from _page(source.documents[-1], "test")


def _page(document: Document, split: str) -> Iterator[Row]:
    image = _image(document.content, f"page_{document.number}.png")
    for place, asked in enumerate(document.questions):
        number = 1000 * document.number + place
        row = rows.docvqa(number, asked.question, [asked.kind], document.number, asked.answers, split)
        yield {**row, "image": image}


def _shown(picture: Picture, row: Row) -> Row:
    return {**row, "image": _image(picture.content, picture.file_name)}
