"""How fast vanilla answers, against what people run today: the harness's own `llava_hf`, or `generate` without it.

Rule: all answer the same questions, from picture files to the last of a fixed number of tokens; they are timed in pairs
(`bench/pairs.py`). Prompts and pictures are prepared as `llava_hf` does (Vicuna's prompt, the processor's centre crop),
so that all get the same tokens and pixels; answers that differ from the base's are counted.
Memory is that of one batch. The engine holds one more batch of pixels in the computer's memory, which is not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from lmms_ca_plugin.bench.estimate import Claim, Estimate
from lmms_ca_plugin.bench.memory import Peak
from lmms_ca_plugin.bench.models import held_bytes
from lmms_ca_plugin.bench.pairs import MEMORY_PASSES, Call, Pair, at_least_one, in_pairs, peaks
from lmms_ca_plugin.bench.sides import EngineRunner, GenerateRunner, MethodSide, Runner, as_files, make_questions
from lmms_ca_plugin.bench.targets import BEST_ON_GPU, MATCHES, NO_SLOWER
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Family, InputOptions, Question
from lmms_ca_plugin.methods import load_method

Peer = Callable[[Family, Sequence[Question], int], Runner]
"""Makes the harness's own entry for a model, questions and a number of new tokens."""


@dataclass(frozen=True)
class ThroughputOptions:
    """How throughput is measured.

    Attributes:
        batch_sizes: Of vanilla; 1 is among them.
        questions: Answered by each side in one timed run; at least two batches of the largest size, so that one is
            prepared ahead.
        pairs: Timed pairs per side; below 9 nothing is judged.
        new_tokens: Tokens that every answer has.
        seed: Seeds the questions and the order of everything.
    """

    batch_sizes: tuple[int, ...] = (1, 2, 4)
    questions: int = 8
    pairs: int = 9
    new_tokens: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = ",".join(map(str, self.batch_sizes))
        if 1 not in self.batch_sizes or min(self.batch_sizes) < 1 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise OptionError(f"batch_sizes={sizes} is not allowed. Allowed: whole numbers, each once, 1 among them.")
        least = 2 * max(self.batch_sizes)
        if self.questions < least:
            raise OptionError(
                f"questions={self.questions} is not allowed with batch_sizes={sizes}. Allowed: {least} and more, two "
                "batches of the largest size."
            )
        at_least_one(self, "pairs", "new_tokens")


@dataclass(frozen=True)
class Speed:
    """How fast one side is.

    Attributes:
        name: How tables call it.
        batch_size: Questions that pass the model together.
        pairs: What was timed, the base and this; the base itself has none.
        peaks: Its peaks for one batch, one per pass.
        same: Questions that it answers as the base does.
        encoding: Seconds spent on pictures and prompts over seconds of the run, by run; empty where it is not known.
        waiting: Seconds that the model waited for them over seconds of the run, by run.
    """

    name: str
    batch_size: int
    pairs: tuple[Pair, ...]
    peaks: tuple[Peak, ...]
    same: int
    encoding: tuple[float, ...] = ()
    waiting: tuple[float, ...] = ()

    @property
    def time(self) -> Estimate:
        """Time relative to the base."""
        return Estimate.of_noisy([pair.ratio for pair in self.pairs])


@dataclass(frozen=True)
class Throughput:
    """What was measured.

    Attributes:
        base: The side that all others are measured against; its runs are in their pairs.
        speeds: The others: vanilla by batch size, and `generate` where it is not the base.
        questions: Answered in one run.
        on_gpu: Whether the targets of a GPU hold.
    """

    base: Speed
    speeds: tuple[Speed, ...]
    questions: int
    on_gpu: bool

    @property
    def base_seconds(self) -> float:
        """The median of the base's runs."""
        return statistics.median(pair.base for speed in self.speeds for pair in speed.pairs)

    @property
    def claims(self) -> list[Claim]:
        """What is to be shown: vanilla is no slower, on a GPU far faster, and `generate` may stand for `llava_hf`."""
        alone, *others = self.speeds
        vanilla = [alone, *(speed for speed in others if speed.encoding)]
        claims = [Claim(f"time of {alone.name}, relative to {self.base.name}", alone.time, NO_SLOWER)]
        if self.on_gpu:
            best = min(vanilla, key=lambda speed: speed.time.median)
            claims.append(Claim(f"time of {best.name}, the best, relative to {self.base.name}", best.time, BEST_ON_GPU))
        least, most = MATCHES
        claims += [
            Claim(f"time of {speed.name}, relative to {self.base.name}", speed.time, most, least)
            for speed in others
            if not speed.encoding
        ]
        return claims


def measure(family: Family, options: ThroughputOptions, peer: Peer | None = None) -> Throughput:
    """Measures vanilla, at several batch sizes, against `llava_hf` or `generate`.

    Args:
        family: The model, a LLaVA-1.5.
        options: How.
        peer: Makes the harness's `llava_hf`, which is the base then; without it the base is `generate`.

    Raises:
        LmmsCaError: A side decoded another number of tokens.
    """
    family = type(family)(family.model, family.processor, InputOptions("vicuna_v1", "processor"))
    device, held = family.model.device, held_bytes(family)
    questions = as_files(make_questions(options.questions, options.seed))
    vanilla = load_method("vanilla")()
    sizes = sorted(options.batch_sizes)
    sides = [MethodSide.build("vanilla", family, vanilla, size, options.seed, options.new_tokens) for size in sizes]
    engines = [EngineRunner(side) for side in sides]
    generate = GenerateRunner(family, options.new_tokens)
    base: Runner = generate if peer is None else peer(family, questions, options.new_tokens)
    runners: list[Runner] = [base, *engines, *([] if peer is None else [generate])]
    batches = [1, *sizes, 1][: len(runners)]
    # The profiler sees one thread, so memory is that of a batch with nothing beside it.
    ones: list[Call] = [partial(base.texts, questions[:1])]
    ones += [partial(side.answer, questions[:size]) for side, size in zip(sides, sizes, strict=True)]
    ones += [] if peer is None else [partial(generate.texts, questions[:1])]
    total = (MEMORY_PASSES + 1) * len(runners) + 2 * options.pairs * (len(runners) - 1)
    with tqdm(total=total, unit="run", desc="memory", smoothing=0.1) as progress:
        measured = [peaks(one, device, held, progress.update) for one in ones]
        progress.set_description("time")
        texts = []
        for runner in runners:
            texts.append(runner.texts(questions))
            progress.update()
        calls = [partial(runner.texts, questions) for runner in runners]
        pairs = in_pairs(calls[0], calls[1:], device, options.pairs, options.seed, progress.update)
    speeds = [
        Speed(
            runner.name,
            batch,
            tuple(timed),
            peak,
            sum(mine == its for mine, its in zip(text, texts[0], strict=True)),
            *(_shares(runner, timed) if isinstance(runner, EngineRunner) else ((), ())),
        )
        for runner, batch, timed, peak, text in zip(runners, batches, [[], *pairs], measured, texts, strict=True)
    ]
    return Throughput(speeds[0], tuple(speeds[1:]), options.questions, device.type == "cuda")


def _shares(runner: EngineRunner, pairs: Sequence[Pair]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How much of each timed run went into pictures and prompts, and into waiting for them; the first run warmed up."""
    timed = list(zip(runner.spent[1:], pairs, strict=True))
    encoding = tuple(spent.encoding / pair.own for spent, pair in timed)
    return encoding, tuple(spent.waiting / pair.own for spent, pair in timed)
