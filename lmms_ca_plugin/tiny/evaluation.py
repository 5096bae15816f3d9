"""What the small checkpoint knows: the mini sets with their own pictures, with others' and with none.

A model that uses its pictures loses when they are swapped. The most frequent answer of each kind of question is what
one knows without any model at all. The harness's own run gives the numbers that are published; this is for what a task
cannot say (pictures swapped, no picture), and needs no harness.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Any, Literal, get_args

from lmms_ca_plugin.engine.engine import Engine, Request, RunOptions
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.errors import unknown
from lmms_ca_plugin.families._contract import Message, Question
from lmms_ca_plugin.methods.vanilla import Vanilla
from lmms_ca_plugin.results.statistics import mean_interval
from lmms_ca_plugin.scoring.documents import BENCHMARKS, score
from lmms_ca_plugin.tiny.benchmarks.mini import QUESTIONS, SCENE, choose, mini_rows
from lmms_ca_plugin.tiny.benchmarks.rows import Row
from lmms_ca_plugin.tiny.world.pictures import pictures
from lmms_ca_plugin.tiny.world.prompts import user_text

Shown = Literal["own", "swapped", "none"]
_NEW_TOKENS = 16


def evaluate(
    pretrained: str, shown: Shown = "own", limit: int | None = None, batch_size: int = 32
) -> dict[str, list[float]]:
    """Answers the mini sets greedily.

    Args:
        pretrained: A bundled name, a folder or a hub id.
        shown: Every question's own picture, that of another question of the same set, or none.
        limit: Questions per set; all without one.
        batch_size: Questions that pass the model together.

    Returns:
        By set, the main metric of every question, 0 to 1.

    Raises:
        OptionError: There is no such way to show pictures.
        CheckpointError: The checkpoint cannot be used.
    """
    if shown not in get_args(Shown):
        raise unknown("way to show pictures", shown, get_args(Shown))
    options = RunOptions(batch_size=batch_size)
    engine = Engine.load("vanilla", Vanilla(), CheckpointOptions(pretrained), InputOptions(), options)
    rows = {benchmark: mini_rows(benchmark)[:limit] for benchmark in BENCHMARKS}
    requests = [
        Request(_question(benchmark, number, row, scene), Generation(max_new_tokens=_NEW_TOKENS))
        for benchmark, of in rows.items()
        for number, (row, scene) in enumerate(zip(of, _scenes(of, shown), strict=True))
    ]
    answers = iter(engine.answer(requests))
    return {
        benchmark: [score(benchmark, row, next(answers).text)[BENCHMARKS[benchmark].main]["score"] for row in of]
        for benchmark, of in rows.items()
    }


def most_frequent() -> dict[str, list[float]]:
    """Scores the most frequent answer of each kind of question, counted on the very questions that it answers.

    Returns:
        By set, the main metric of every question, 0 to 1.
    """
    found: dict[str, list[float]] = {}
    for benchmark in BENCHMARKS:
        chosen, rows = choose(benchmark), mini_rows(benchmark)
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for each in chosen:
            answers[each.asked.kind][each.asked.answer] += 1
        said = [answers[each.asked.kind].most_common(1)[0][0] for each in chosen]
        main = BENCHMARKS[benchmark].main
        found[benchmark] = [
            score(benchmark, row, answer)[main]["score"] for row, answer in zip(rows, said, strict=True)
        ]
    return found


def means(scores: dict[str, list[float]]) -> dict[str, float]:
    """Averages the scores of each set, and these over the sets as `mean`; percent."""
    by_set = {benchmark: 100 * fmean(values) for benchmark, values in scores.items()}
    return {**by_set, "mean": fmean(by_set.values())}


def cells(scores: dict[str, list[float]]) -> list[str]:
    """Writes each set's mean with half its 95 % interval, clustered by scene, and the mean of the means; percent."""
    written = []
    for benchmark, values in scores.items():
        scenes = [row[SCENE] for row in mini_rows(benchmark)[: len(values)]]
        found = mean_interval(values, scenes)
        written.append(f"{100 * found.mean:.1f} ± {50 * (found.high - found.low):.1f}")
    return [*written, f"{means(scores)['mean']:.1f}"]


def _scenes(rows: Sequence[Row], shown: Shown) -> list[str | None]:
    own = [row[SCENE] for row in rows]
    if shown == "none":
        return [None] * len(own)
    if shown == "own":
        return list(own)
    order = list(range(len(own)))
    Random("swapped").shuffle(order)
    # A shuffled cycle gives every question the scene of another row; a row may share its own scene with that one.
    other: list[str | None] = [None] * len(own)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        other[here] = own[there]
    return other


def _question(benchmark: str, number: int, row: Row, scene: str | None) -> Question:
    text = user_text(benchmark, row["question"])

    def conversation() -> tuple[Message, ...]:
        shown: Any = () if scene is None else tuple(pictures({SCENE: scene}))
        return (Message("user", text, shown),)

    return Question(f"mini_{benchmark}", "test", number, conversation, len(text))


__all__ = ["BENCHMARKS", "QUESTIONS", "Shown", "cells", "evaluate", "means", "most_frequent"]
