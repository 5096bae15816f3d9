"""What the language model is taught: many questions packed behind one picture.

The picture's tokens pass the trunk once for all its questions. Every question sees the picture and itself, and its
positions follow the picture's, so each stands as it would alone in its prompt (a test compares the logits).

Axis letters: b pictures, s packed positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from lmms_ca_plugin.families._conversations import VICUNA_V1_SYSTEM
from lmms_ca_plugin.scoring.documents import BENCHMARKS
from lmms_ca_plugin.tiny.tokenizer import IMAGE, build_tokenizer
from lmms_ca_plugin.tiny.training.views import View, some_view
from lmms_ca_plugin.tiny.world import practice
from lmms_ca_plugin.tiny.world.captions import REQUEST, caption
from lmms_ca_plugin.tiny.world.prompts import user_text
from lmms_ca_plugin.tiny.world.questions import Asked, gqa, load
from lmms_ca_plugin.tiny.world.render import render
from lmms_ca_plugin.tiny.world.scenes import Scene, scene

LENGTH = 176  # positions of the questions behind a picture; about 13 questions, or fewer with a description
IGNORED = -100
_TWO_VIEWS_EVERY = 8  # batches; half as many pictures, each with a crop beside it
_TRIES = 60


@dataclass(frozen=True)
class Course:
    """What lessons are about.

    Attributes:
        scenes: Kinds of scenes, and how often each is shown.
        asked: For each kind, how often each maker in `_MAKERS` asks.
        described: Whether each picture is described, too.
    """

    scenes: Mapping[str, float]
    asked: Mapping[str, Mapping[str, float]]
    described: bool


_MAKERS: dict[str, tuple[str, Callable[[Scene, Random], Asked | None]]] = {
    **{benchmark: (benchmark, load(benchmark).ask) for benchmark in BENCHMARKS},
    "gqa_of_two": ("gqa", gqa.ask_about_two),
    "gqa_compared": ("gqa", gqa.ask_to_compare),
    "practice": ("gqa", practice.ask),
}
"""Who asks, and the set in whose words."""

_ELSEWHERE = {"street": {"textvqa": 0.7, "vqav2": 0.3}, "page": {"docvqa": 1.0}, "snap": {"vizwiz": 1.0}}
COURSES = {
    "answering": Course(
        {"shapes": 0.45, "street": 0.22, "page": 0.24, "snap": 0.09},
        {"shapes": {"gqa": 0.55, "vqav2": 0.25, "okvqa": 0.2}, **_ELSEWHERE},
        described=True,
    ),
    # Among all else, comparisons are a fiftieth of the answer tokens, and stay at chance when the rest is learned.
    "comparing": Course(
        {"shapes": 0.62, "street": 0.14, "page": 0.16, "snap": 0.08},
        {"shapes": {"gqa_of_two": 0.42, "practice": 0.34, "gqa": 0.12, "vqav2": 0.07, "okvqa": 0.05}, **_ELSEWHERE},
        described=False,
    ),
    "refining": Course(
        {"shapes": 0.78, "street": 0.08, "page": 0.08, "snap": 0.06},
        {"shapes": {"gqa_of_two": 0.74, "practice": 0.12, "gqa": 0.06, "vqav2": 0.05, "okvqa": 0.03}, **_ELSEWHERE},
        described=False,
    ),
    # Two things have been told apart by now, but not yet compared.
    "finishing": Course(
        {"shapes": 0.76, "street": 0.09, "page": 0.09, "snap": 0.06},
        {"shapes": {"gqa_compared": 0.76, "practice": 0.06, "gqa": 0.1, "vqav2": 0.05, "okvqa": 0.03}, **_ELSEWHERE},
        described=False,
    ),
}
Encoded = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Lesson:
    """A batch.

    Attributes:
        pixels: (views, 3, side, side); those of a picture one after the other. None where nothing is shown.
        input_ids: (b, s), padded on the right.
        segments: (b, s): 0 is the picture and what stands before the questions, then the questions' numbers; -1 is
            padding.
        positions: (b, s).
        labels: (b, s): the token that should come next where an answer is given, else `IGNORED`.
    """

    pixels: Tensor | None
    input_ids: Tensor
    segments: Tensor
    positions: Tensor
    labels: Tensor


@lru_cache(maxsize=200_000)
def _ids(text: str) -> tuple[int, ...]:
    return tuple(build_tokenizer_once()(text, add_special_tokens=False).input_ids)


@lru_cache(maxsize=1)
def build_tokenizer_once() -> Any:
    """The small world's tokenizer, one per process."""
    return build_tokenizer("world")


def prefix(views: int, view_tokens: int) -> tuple[int, ...]:
    """What stands before the question: beginning, system sentence, pictures.

    Args:
        views: Pictures shown; 0 for a model that sees none.
        view_tokens: Tokens of each.

    Returns:
        Token ids.
    """
    tokenizer = build_tokenizer_once()
    shown = (" " + (IMAGE * view_tokens + "\n") * views) if views else " "
    return (tokenizer.bos_token_id, *_ids(f"{VICUNA_V1_SYSTEM} USER:{shown}"))


Question = tuple[str, str]
"""What the user says, and the answer."""


def questions(shown: Scene, draw: Random, course: Course) -> Iterator[Question]:
    """Asks about a scene until little new comes; a description is asked for first, if at all."""
    if course.described:
        yield REQUEST, caption(shown)
    weights = course.asked[shown.name.partition("-")[0]]
    asked: set[str] = set()
    for _ in range(_TRIES):
        benchmark, ask = _MAKERS[draw.choices(tuple(weights), tuple(weights.values()))[0]]
        made = ask(shown, draw)
        if made is not None and made.question not in asked:
            asked.add(made.question)
            yield user_text(benchmark, made.question), made.answer


@dataclass(frozen=True)
class LessonData(Dataset[Lesson]):
    """Lessons by step.

    Attributes:
        image_processor: The checkpoint's own; None teaches a model that sees no picture.
        batch: Pictures in a batch.
        view_tokens: Tokens of a picture.
        course: What the lessons are about, a name of `COURSES`.
        seed: Of scenes and questions.
    """

    image_processor: Any
    batch: int
    view_tokens: int
    course: str
    seed: int = 0

    def __getitem__(self, step: int) -> Lesson:
        """Draws the lesson of a step."""
        course = COURSES[self.course]
        draw = Random(f"{self.course}:{self.seed}:{step}")
        views = 0 if self.image_processor is None else 2 if step % _TWO_VIEWS_EVERY == _TWO_VIEWS_EVERY - 1 else 1
        rows, images = [], []
        for _ in range(self.batch // max(views, 1)):
            kind = draw.choices(tuple(course.scenes), tuple(course.scenes.values()))[0]
            shown = scene(f"{kind}-train-{draw.getrandbits(40)}")
            rows.append(_fitting(questions(shown, draw, course)))
            if views:
                image = render(shown).image
                images += [view.cut(image) for view in (View(), some_view(Random(shown.name), 1.0))[:views]]
        pixels = self.image_processor(images=images, return_tensors="pt")["pixel_values"] if views else None
        return _pack(rows, prefix(views, self.view_tokens), pixels)


def _encoded(said: str, answer: str) -> Encoded:
    """Token ids of a question, up to where the answer begins, and of the answer."""
    return _ids(f"{said} ASSISTANT:"), _ids(f" {answer}")


def _fitting(asked: Iterable[Question]) -> list[Question]:
    """Takes questions as long as they fit behind a picture."""
    left, taken = LENGTH, []
    for question in asked:
        left -= sum(map(len, _encoded(*question)))
        if left < 0:
            break
        taken.append(question)
    return taken


def _pack(rows: Sequence[Sequence[Question]], before: tuple[int, ...], pixels: Tensor | None) -> Lesson:
    end = build_tokenizer_once().eos_token_id
    columns: dict[str, list[Tensor]] = {name: [] for name in ("ids", "segments", "positions", "labels")}
    for row in rows:
        ids, segments, positions = list(before), [0] * len(before), list(range(len(before)))
        labels = [IGNORED] * len(before)
        for number, (said, answer) in enumerate(row, 1):
            question, given = _encoded(said, answer)
            length = len(question) + len(given)  # the end token is only ever a label
            ids += [*question, *given]
            segments += [number] * length
            positions += range(len(before), len(before) + length)
            labels += [IGNORED] * (len(question) - 1) + [*given, end]
        for name, values in zip(columns, (ids, segments, positions, labels), strict=True):
            columns[name].append(torch.tensor(values))
    fills = {"ids": end, "segments": -1, "positions": 0, "labels": IGNORED}
    padded = {name: pad_sequence(rows, True, fills[name]) for name, rows in columns.items()}
    return Lesson(pixels, padded["ids"], padded["segments"], padded["positions"], padded["labels"])
