"""What the small checkpoint knows: the mini sets with their own pictures, with others' and with none.

A model that uses its pictures loses when they are swapped. The most frequent answer of each kind of question is what
one knows without any model at all. The harness's own run gives the numbers that are published; this is for what a task
cannot say (pictures swapped, no picture), and needs no harness.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Any

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import unknown
from lmms_ca_plugin.families._contract import Message, Question
from lmms_ca_plugin.methods.vanilla import Vanilla
from lmms_ca_plugin.results.statistics import mean_interval
from lmms_ca_plugin.scoring.documents import BENCHMARKS, score
from lmms_ca_plugin.tiny.benchmarks.mini import SCENE, choose, mini_rows
from lmms_ca_plugin.tiny.benchmarks.rows import Row
from lmms_ca_plugin.tiny.world.pictures import pictures
from lmms_ca_plugin.tiny.world.prompts import user_text

Scenes = Callable[[Sequence[str]], Sequence[str | None]]


def evaluate(
    pretrained: str, shown: Sequence[str] = ("own",), limit: int | None = None, batch_size: int = 32
) -> dict[str, dict[str, list[float]]]:
    """Answers the mini sets greedily.

    Args:
        pretrained: A bundled name, a folder or a hub id.
        shown: `own` shows every question's own picture, `swapped` that of another question of the same set, `none`
            shows none.
        limit: Questions per set; all without one.
        batch_size: Questions that pass the model together.

    Returns:
        By way to show pictures and by set, the main metric of every question, 0 to 1.

    Raises:
        OptionError: There is no such way to show pictures.
        CheckpointError: The checkpoint cannot be used.
    """
    for way in shown:
        if way not in SHOWN:
            raise unknown("way to show pictures", way, SHOWN)
    options = RunOptions(batch_size=batch_size)
    engine = Engine.load("vanilla", Vanilla(), CheckpointOptions(pretrained), InputOptions(), options)
    rows = {benchmark: mini_rows(benchmark)[:limit] for benchmark in BENCHMARKS}
    return {way: _scores(engine, rows, SHOWN[way]) for way in shown}


def _scores(engine: Engine, rows: Mapping[str, Sequence[Row]], scenes: Scenes) -> dict[str, list[float]]:
    requests = [
        Request(_question(benchmark, number, row, scene), Generation())
        for benchmark, of in rows.items()
        for number, (row, scene) in enumerate(zip(of, scenes([row[SCENE] for row in of]), strict=True))
    ]
    answers = iter(engine.answer(requests))
    return {
        benchmark: [score(benchmark, row, next(answers).text)[BENCHMARKS[benchmark].main]["score"] for row in of]
        for benchmark, of in rows.items()
    }


def most_frequent(limit: int | None = None) -> dict[str, list[float]]:
    """Scores the most frequent answer of each kind of question, counted on the very questions that it answers.

    Args:
        limit: The first so many of each set; None takes all.

    Returns:
        By set, the main metric of every question, 0 to 1.
    """
    found: dict[str, list[float]] = {}
    for benchmark in BENCHMARKS:
        chosen, rows = choose(benchmark)[:limit], mini_rows(benchmark)[:limit]
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for each in chosen:
            answers[each.asked.kind][each.asked.answer] += 1
        said = [answers[each.asked.kind].most_common(1)[0][0] for each in chosen]
        main = BENCHMARKS[benchmark].main
        found[benchmark] = [
            score(benchmark, row, answer)[main]["score"] for row, answer in zip(rows, said, strict=True)
        ]
    return found


def by_kind(scores: dict[str, list[float]]) -> dict[tuple[str, str], list[float]]:
    """Sorts scores by the kinds of their questions.

    Args:
        scores: By set, the main metric of its first questions, as `evaluate` gives them.

    Returns:
        By set and kind, the scores; a set's kinds by name.
    """
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for benchmark, values in scores.items():
        for chosen, value in zip(choose(benchmark), values, strict=False):  # a limit leaves the last ones out
            found[benchmark, chosen.asked.kind].append(value)
    return {key: found[key] for benchmark in scores for key in sorted(found) if key[0] == benchmark}


def means(scores: dict[str, list[float]]) -> dict[str, float]:
    """Averages the scores of each set, and these over the sets as `mean`; percent."""
    by_set = {benchmark: 100 * fmean(values) for benchmark, values in scores.items()}
    return {**by_set, "mean": fmean(by_set.values())}


def cells(scores: dict[str, list[float]]) -> list[str]:
    """Writes each set's mean with its 95 % interval, clustered by scene, and the mean of the means; percent."""
    written = []
    for benchmark, values in scores.items():
        scenes = [row[SCENE] for row in mini_rows(benchmark)[: len(values)]]
        found = mean_interval(values, scenes)
        ends = f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if found.stderr == found.stderr else ""  # one scene
        written.append(f"{100 * found.mean:.1f}{ends}")
    return [*written, f"{means(scores)['mean']:.1f}"]


def _swapped(own: Sequence[str]) -> list[str]:
    order = list(range(len(own)))
    Random("swapped").shuffle(order)
    # A shuffled cycle gives every question the scene of another row; a row may share its own scene with that one.
    there = dict(zip(order, order[1:] + order[:1], strict=True))
    return [own[there[here]] for here in range(len(own))]


SHOWN: dict[str, Scenes] = {"own": list, "swapped": _swapped, "none": lambda own: [None] * len(own)}
"""Ways to show pictures: from the questions' own scenes to those that are shown."""


def _question(benchmark: str, number: int, row: Row, scene: str | None) -> Question:
    text = user_text(benchmark, row["question"])

    def conversation() -> tuple[Message, ...]:
        shown: Any = () if scene is None else tuple(pictures({SCENE: scene}))
        return (Message("user", text, shown),)

    return Question(f"mini_{benchmark}", "test", number, conversation, len(text))
