"""The six sets in small, in the harness's schemas, as folders that `load_dataset` takes for the hub's repositories."""

from pathlib import Path

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

QUESTIONS = 12
COLOURS = ["red", "green", "blue", "black"]
TEXT = Value("string")


def _picture(i):
    return Pillow.new("RGB", (8, 8), COLOURS[i // 3])


def _votes(i):
    return [COLOURS[i // 3]] * 7 + ["grey"] * 3


def _rows(**columns):
    return {name: [make(i) for i in range(QUESTIONS)] for name, make in columns.items()}


def _sets():
    """Yields folder, config, split, columns and features."""
    question = {"question": lambda i: f"Which COLOUR is picture {i // 3}?"}
    image = {"image": _picture}
    yield (
        "GQA",
        "testdev_balanced_instructions",
        "testdev",
        _rows(id=lambda i: f"q{i}", imageId=lambda i: f"n{i // 3}", **question, answer=lambda i: COLOURS[i // 3]),
        {"id": TEXT, "imageId": TEXT, "question": TEXT, "answer": TEXT},
    )
    yield (
        "GQA",
        "testdev_balanced_images",
        "testdev",
        {"id": [f"n{i}" for i in range(4)], "image": [_picture(3 * i) for i in range(4)]},
        {"id": TEXT, "image": Image()},
    )
    record = {"answer": TEXT, "answer_confidence": TEXT, "answer_id": Value("int64")}
    yield (
        "VQAv2",
        "default",
        "validation",
        _rows(
            question_id=lambda i: 1000 + i,
            image_id=lambda i: i // 3,
            answers=lambda i: [
                {"answer": a, "answer_confidence": "yes", "answer_id": k} for k, a in enumerate(_votes(i))
            ],
            **question,
            **image,
        ),
        {
            "question_id": Value("int64"),
            "image_id": Value("int64"),
            "answers": List(record),
            "question": TEXT,
            "image": Image(),
        },
    )
    answers = {"answers": _votes}
    texts = {"question": TEXT, "answers": List(TEXT), "image": Image()}
    yield (
        "OK-VQA",
        "default",
        "val2014",
        _rows(question_id=lambda i: f"77{i // 3}{i % 3}", **question, **answers, **image),
        {"question_id": TEXT} | texts,
    )
    yield (
        "VizWiz-VQA",
        "default",
        "val",
        _rows(question_id=lambda i: f"VizWiz_val_{i:08d}", **question, **answers, **image),
        {"question_id": TEXT} | texts,
    )
    yield (
        "textvqa",
        "default",
        "validation",
        _rows(image_id=lambda i: f"t{i // 3}", question_id=lambda i: i, **question, **answers, **image),
        {"image_id": TEXT, "question_id": Value("int32")} | texts,
    )
    yield (
        "DocVQA",
        "DocVQA",
        "validation",
        _rows(
            questionId=lambda i: str(i),
            ucsf_document_id=lambda i: f"abcd{i // 6}",
            ucsf_document_page_no=lambda i: str(i // 3),
            answers=lambda i: [COLOURS[i // 3], f"the {COLOURS[i // 3]} one"],
            **question,
            **image,
        ),
        {"questionId": TEXT, "ucsf_document_id": TEXT, "ucsf_document_page_no": TEXT} | texts,
    )


def write(root: Path) -> None:
    """Writes `lmms-lab-encoder/<set>` under a folder that then is made the working directory."""
    configs: dict[str, list[str]] = {}
    for name, config, split, columns, features in _sets():
        folder = root / "lmms-lab-encoder" / name
        folder.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns, features=Features(features)).to_parquet(folder / f"{config}.parquet")
        entry = f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}.parquet\n"
        configs.setdefault(name, []).append(entry)
    for name, entries in configs.items():
        card = "---\nconfigs:\n" + "".join(entries) + "---\n"
        (root / "lmms-lab-encoder" / name / "README.md").write_text(card)
