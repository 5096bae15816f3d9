"""What the paper's masking studies cost as branches of one pass, and how near that is to what they cannot do without.

Rule: timed in pairs (`bench/pairs.py`): Table 3 with Figure 7 against one run of vanilla, the layer sweep against its
variants one by one, at the same batch size on the same questions. The floor counts operations (`bench/study_floor.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tqdm import tqdm

from lmms_ca_plugin.bench.estimate import Claim, Estimate
from lmms_ca_plugin.bench.memory import Peak
from lmms_ca_plugin.bench.models import held_bytes
from lmms_ca_plugin.bench.pairs import MEMORY_PASSES, Pair, at_least_one, in_pairs, peaks
from lmms_ca_plugin.bench.sides import MethodSide, check_tokens, make_questions
from lmms_ca_plugin.bench.study_floor import StudyFloor, study_floor
from lmms_ca_plugin.bench.targets import OVER_FLOOR
from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.requests import Answer, RunOptions
from lmms_ca_plugin.errors import OptionError, unknown
from lmms_ca_plugin.families._contract import Family, Question, Trunk
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods._compared import layers, ratios, scopes
from lmms_ca_plugin.methods._variant import Variant, plain

Against = Literal["one vanilla run", "its variants one by one"]


@dataclass(frozen=True)
class Case:
    """A study, and what it may cost.

    Attributes:
        title: How tables call it.
        variants: What it compares on a trunk.
        against: What it is measured against.
        target: The largest time allowed, relative to that.
    """

    title: str
    variants: Callable[[Trunk], Sequence[Variant]]
    against: Against
    target: float


CASES = {
    "masking": Case(
        "Table 3 and Figure 7",
        lambda _trunk: tuple({v.name: v for v in (*scopes(plain), *ratios(plain))}.values()),
        "one vanilla run",
        2.0,
    ),
    "layers": Case("layer sweep", lambda trunk: layers(plain, trunk), "its variants one by one", 0.55),
}


@dataclass(frozen=True)
class StudiesOptions:
    """How studies are measured.

    Attributes:
        studies: Which.
        pairs: Timed pairs per study; below 9 nothing is judged.
        batch_size: Questions that are answered together, by the study and by what it is measured against.
        new_tokens: Tokens that every answer has.
        seed: Seeds the questions and the order of everything.
    """

    studies: tuple[str, ...] = tuple(CASES)
    pairs: int = 9
    batch_size: int = 2
    new_tokens: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one(self, "pairs", "batch_size", "new_tokens")
        for study in self.studies:
            if study not in CASES:
                raise unknown("study", study, tuple(CASES))
        if not self.studies or len(set(self.studies)) < len(self.studies):
            raise OptionError(f"studies={','.join(self.studies)} names none, or one twice. Name each study once.")


@dataclass(frozen=True)
class StudyCost:
    """What one study costs.

    Attributes:
        name: Its key.
        case: What it is, and its target.
        variants: How many it compares.
        branches: How many of them differ, by question; the others are computed with one of these.
        agreement: Its answers beside those of runs of the variants' own.
        pairs: What was timed.
        peaks: Its peaks, one per pass.
        vanilla_peaks: One vanilla run's.
        floor: The operations that it cannot do without.
    """

    name: str
    case: Case
    variants: int
    branches: tuple[int, ...]
    agreement: Agreement
    pairs: tuple[Pair, ...]
    peaks: tuple[Peak, ...]
    vanilla_peaks: tuple[Peak, ...]
    floor: StudyFloor

    @property
    def time(self) -> Estimate:
        """Its time relative to what it is measured against."""
        return Estimate.of_noisy([pair.ratio for pair in self.pairs])

    @property
    def least(self) -> float:
        """The same ratio of operations."""
        return self.floor.baseline_runs if self.case.against == "one vanilla run" else self.floor.share

    @property
    def claims(self) -> list[Claim]:
        """What is to be shown: a time, and that no more than a little of it is needless."""
        return [
            Claim(f"time of {self.case.title}, relative to {self.case.against}", self.time, self.case.target),
            Claim(
                f"the same over its floor by operation count, {self.least:.3f}", self.time.over(self.least), OVER_FLOOR
            ),
        ]


def measure(family: Family, options: StudiesOptions) -> list[StudyCost]:
    """Measures studies.

    Args:
        family: The model, a LLaVA-1.5.
        options: How.

    Raises:
        OptionError: A variant does not fit the model.
        LmmsCaError: An answer has another number of tokens than asked for.
    """
    questions = make_questions(options.batch_size, options.seed)
    vanilla = MethodSide.build(
        "vanilla", family, load_method("vanilla")(), options.batch_size, options.seed, options.new_tokens
    )
    total = len(options.studies) * (2 * MEMORY_PASSES + 2 + 2 * options.pairs)
    with tqdm(total=total, unit="run", smoothing=0.1) as progress:
        return [_measure(name, vanilla, questions, options, progress) for name in options.studies]


def _measure(
    name: str, vanilla: MethodSide, questions: Sequence[Question], options: StudiesOptions, progress: tqdm
) -> StudyCost:
    case, family, generation = CASES[name], vanilla.engine.family, vanilla.generation
    device, held = family.model.device, held_bytes(family)
    progress.set_description(f"{case.title}: self-check")
    methods = {variant.name: variant.made() for variant in case.variants(family.trunk)}
    run = RunOptions(batch_size=options.batch_size, seed=options.seed)
    study = Branched(family, methods, run, name=case.title, is_main=False)
    study.end_tokens = frozenset()
    together = partial(study.answer_batch, questions, generation)
    progress.set_description(f"{case.title}: memory")
    of_vanilla = peaks(partial(vanilla.answer, questions), device, held, progress.update)
    of_study = peaks(together, device, held, progress.update)
    progress.set_description(f"{case.title}: time")
    answers = together()
    progress.update()
    engines = {"vanilla": vanilla.engine}
    if case.against == "its variants one by one":
        engines = {name: _alone(vanilla.engine, study, name) for name in methods}

    def apart() -> dict[str, list[Answer]]:
        return {name: engine.answer_batch(questions, generation) for name, engine in engines.items()}

    agreement = _agreement(case.title, answers, apart(), options.new_tokens)
    progress.update()
    (pairs,) = in_pairs(apart, [together], device, options.pairs, options.seed, progress.update)
    blocks = family.trunk.num_blocks
    first_blocks = {name: plan.first_block(blocks) for name, plan in study.plans.items()}
    return StudyCost(
        name=name,
        case=case,
        variants=len(methods),
        branches=tuple(sum(a.same_as is None for a in row) for row in zip(*answers.values(), strict=True)),
        agreement=agreement,
        pairs=tuple(pairs),
        peaks=of_study,
        vanilla_peaks=of_vanilla,
        floor=study_floor(family, answers, first_blocks, options.new_tokens),
    )


def _alone(vanilla: Engine, study: Branched, variant: str) -> Engine:
    """An engine for one variant; the study has proven its plan on this model, which would take as long again."""
    engine = copy(vanilla)
    engine.method, engine.plan = study.variants[variant], study.plans[variant]
    return engine


def _agreement(
    title: str, together: dict[str, list[Answer]], apart: dict[str, list[Answer]], new_tokens: int
) -> Agreement:
    """Compares the answers that were given both ways.

    Raises:
        LmmsCaError: An answer has another number of tokens than asked for.
    """
    for answers in (together, apart):
        for name, of_variant in answers.items():
            for answer in of_variant:
                check_tokens(f"{title}, {name}", answer.new_tokens, new_tokens)
    return sum((Agreement.of(together[name], apart[name]) for name in apart), Agreement(0, ()))
