"""The rows of mini_gqa .. mini_docvqa: questions on evaluation scenes, in the six schemas.

A row holds the name of its scene in place of the picture, which is drawn when it is asked for.
Rule: in a balanced set kinds of questions are equally frequent, and so are the answers of a kind, as far as the scenes
allow. So the most frequent answer of a kind is seldom right. The others take questions as they come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.tiny.benchmarks import rows, schemas
from lmms_ca_plugin.tiny.benchmarks.rows import Row
from lmms_ca_plugin.tiny.world.questions import Asked, load
from lmms_ca_plugin.tiny.world.render import PIXELS
from lmms_ca_plugin.tiny.world.scenes import Scene, scene

QUESTIONS = 500  # of each set
SCENE = "scene"  # the column that holds a scene's name
_POOL = 3000  # scenes to choose questions from
_PER_SCENE = 2  # questions made for each; vizwiz has one question per picture
T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """A question of a set.

    Attributes:
        number: The scene's number.
        place: Its place among the questions on that scene, from 0.
        scene: What it is asked about.
        asked: The question.
    """

    number: int
    place: int
    scene: Scene
    asked: Asked


def _gqa(chosen: Chosen) -> Row:
    asked, number = chosen.asked, chosen.number
    return rows.gqa(f"{number:06d}{chosen.place}", f"n{number}", asked.question, asked.answer, asked.full)


def _vqav2(chosen: Chosen) -> Row:
    number = chosen.number
    return rows.vqav2(number * 1000 + chosen.place, number, chosen.asked.question, chosen.asked.votes)


def _okvqa(chosen: Chosen) -> Row:
    return rows.okvqa(f"{chosen.number}{chosen.place}", chosen.asked.question, chosen.asked.votes)


def _vizwiz(chosen: Chosen) -> Row:
    return rows.vizwiz(f"VizWiz_val_{chosen.number:08d}", chosen.asked.question, chosen.asked.votes)


def _textvqa(chosen: Chosen) -> Row:
    asked, number = chosen.asked, chosen.number
    size = (PIXELS, PIXELS)
    return rows.textvqa(number * 10 + chosen.place, f"{number:016x}", asked.question, asked.votes, size, "val")


def _docvqa(chosen: Chosen) -> Row:
    asked, number = chosen.asked, chosen.number
    return rows.docvqa(number * 10 + chosen.place, asked.question, ["form"], number, [asked.answer], "val")


_FORMS: dict[str, tuple[Callable[[Chosen], Row], Features]] = {
    "gqa": (_gqa, schemas.GQA_QUESTIONS),
    "vqav2": (_vqav2, schemas.VQAV2),
    "okvqa": (_okvqa, schemas.OK_VQA),
    "vizwiz": (_vizwiz, schemas.VIZWIZ),
    "textvqa": (_textvqa, schemas.TEXTVQA),
    "docvqa": (_docvqa, schemas.DOCVQA),
}


def mini_features(benchmark: str) -> Features:
    """Lists the columns of a mini set: the set's own, the scene's name in place of the picture."""
    columns: dict[str, Any] = dict(_FORMS[benchmark][1])
    columns.pop("image", None)
    return Features({**columns, SCENE: Value("string")})


def mini_rows(benchmark: str) -> list[Row]:
    """Makes the rows of a mini set.

    Args:
        benchmark: One of the six sets.

    Returns:
        `QUESTIONS` rows, in the order of their scenes; always the same.
    """
    form, _ = _FORMS[benchmark]
    return [{**form(chosen), SCENE: chosen.scene.name} for chosen in choose(benchmark)]


def write_rows(folder: Path) -> list[Path]:
    """Writes all rows, one parquet file per mini set.

    Args:
        folder: Where to; `tasks/mini` holds those that are shipped. Files of the same name are overwritten.

    Returns:
        The files.

    Raises:
        InputError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}. Name another folder.") from error
    files = []
    for benchmark in _FORMS:
        files.append(folder / f"mini_{benchmark}.parquet")
        schema = mini_features(benchmark).arrow_schema
        pq.write_table(pa.Table.from_pylist(mini_rows(benchmark), schema), files[-1])
    return files


@cache
def choose(benchmark: str) -> tuple[Chosen, ...]:
    """Chooses a mini set's questions.

    Args:
        benchmark: One of the six sets.

    Returns:
        `QUESTIONS` questions on evaluation scenes.
    """
    taken: Iterable[Chosen] = _pool(benchmark)
    if load(benchmark).BALANCED:
        kinds: dict[str, list[Chosen]] = defaultdict(list)
        for chosen in taken:
            kinds[chosen.asked.kind].append(chosen)
        taken = _in_turn(_by_answer(pool) for pool in kinds.values())
    return tuple(sorted(islice(taken, QUESTIONS), key=lambda chosen: (chosen.number, chosen.place)))


def _pool(benchmark: str) -> Iterator[Chosen]:
    maker, draw = load(benchmark), Random(f"mini:{benchmark}")
    places = 1 if benchmark == "vizwiz" else _PER_SCENE
    for number in range(1, _POOL + 1):
        kind = draw.choices(tuple(maker.KINDS), tuple(maker.KINDS.values()))[0]
        shown = scene(f"{kind}-eval-{number}")
        questions: set[str] = set()
        for place in range(places):
            asked = maker.ask(shown, draw)
            if asked is not None and asked.question not in questions:
                questions.add(asked.question)
                yield Chosen(number, place, shown, asked)


def _by_answer(pool: Iterable[Chosen]) -> Iterator[Chosen]:
    """Takes a kind's questions so that all answers come equally often."""
    answers: dict[str, list[Chosen]] = defaultdict(list)
    for chosen in pool:
        answers[chosen.asked.answer].append(chosen)
    return _in_turn(answers.values())


def _in_turn(several: Iterable[Iterable[T]]) -> Iterator[T]:
    """Takes one of each in turn, until all are empty."""
    return (each for each in chain.from_iterable(zip_longest(*several)) if each is not None)
