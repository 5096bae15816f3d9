"""What each method costs: wall time and peak memory relative to vanilla, in one process, on one model.

Rule: time is measured in pairs of vanilla and the method (`bench/pairs.py`). Memory is measured before, in passes of
its own (`bench/memory.py`), which warm everything up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from lmms_ca_plugin.bench.estimate import Estimate, Verdict, overall
from lmms_ca_plugin.bench.floor import Floor
from lmms_ca_plugin.bench.memory import Peak
from lmms_ca_plugin.bench.models import held_bytes
from lmms_ca_plugin.bench.pairs import MEMORY_PASSES, Pair, at_least_one, in_pairs, peaks
from lmms_ca_plugin.bench.sides import MethodSide, NaiveSide, Side, make_questions
from lmms_ca_plugin.bench.targets import CASES, Case
from lmms_ca_plugin.errors import LmmsCaError, OptionError, unknown
from lmms_ca_plugin.families._contract import Family, Question
from lmms_ca_plugin.methods import load_method, method_names

BASELINE = "vanilla"


@dataclass(frozen=True)
class BenchOptions:
    """How methods are measured.

    Attributes:
        methods: Which; None is every method there is.
        pairs: Timed pairs per method; below 9 no time is judged.
        batch_size: Questions that are answered together.
        new_tokens: Tokens that every answer has.
        seed: Seeds the questions and the order of everything.
    """

    methods: tuple[str, ...] | None = None
    pairs: int = 21
    batch_size: int = 1
    new_tokens: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one(self, "pairs", "batch_size", "new_tokens")
        known = method_names()
        for method in self.methods or ():
            if method not in known:
                raise unknown("method", method, known)
        if self.methods is not None and (not self.methods or len(set(self.methods)) < len(self.methods)):
            raise OptionError(f"methods={','.join(self.methods)} names none, or one twice. Name each method once.")


@dataclass(frozen=True)
class Cost:
    """What one method, or the naive way, costs.

    Attributes:
        name: The method.
        parameters: Every option with its value.
        case: How it is measured, and its targets.
        did: What it did on the first question.
        pairs: What was timed.
        peaks: Its peaks, one per pass.
        vanilla_peaks: Vanilla's, in the same passes.
        judged: Which memory the target is about: `working` (beyond the weights) or `total`.
        floor: Its operations beside vanilla's, if they are counted.
    """

    name: str
    parameters: dict[str, Any]
    case: Case
    did: str
    pairs: tuple[Pair, ...]
    peaks: tuple[Peak, ...]
    vanilla_peaks: tuple[Peak, ...]
    judged: str
    floor: Floor | None

    @property
    def time(self) -> Estimate:
        """Wall time relative to vanilla."""
        return Estimate.of_noisy([pair.ratio for pair in self.pairs])

    def memory(self, which: str) -> Estimate:
        """Peak memory relative to vanilla, `working` or `total`."""
        peaks = zip(self.peaks, self.vanilla_peaks, strict=True)
        return Estimate.of_repeatable([getattr(mine, which) / getattr(its, which) for mine, its in peaks])

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each target that there is."""
        targets = {"time": self.case.time, "memory": self.case.memory}
        estimates = {"time": self.time, "memory": self.memory(self.judged)}
        return {name: estimates[name].verdict(target) for name, target in targets.items() if target is not None}

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over all targets; None if there is none."""
        return overall(list(self.verdicts.values()))


@dataclass(frozen=True)
class _Entrant:
    side: Side
    case: Case
    parameters: dict[str, Any]


@dataclass(frozen=True)
class _Measured:
    peaks: tuple[Peak, ...]
    logs: tuple[dict[str, Any], ...]  # one per question, the same in every pass


def measure(family: Family, options: BenchOptions) -> list[Cost]:
    """Measures methods and the naive way against vanilla.

    Args:
        family: The model.
        options: How.

    Returns:
        One cost per method, and the naive way's last.

    Raises:
        OptionError: A method's options do not fit the model.
        LmmsCaError: A method did nothing, or decoded another number of tokens.
    """
    questions = make_questions(options.batch_size, options.seed)
    names = options.methods or method_names()
    entrants_and_naive = len(names) + 1
    total = len(names) + 1 + (MEMORY_PASSES + 1) * (entrants_and_naive + 1) + 2 * options.pairs * entrants_and_naive
    with tqdm(total=total, unit="run", desc="self-check", smoothing=0.1) as progress:
        vanilla = _entrant(BASELINE, family, options, progress).side
        entrants = [_entrant(name, family, options, progress) for name in names]
        naive = Case(note="eager attention with output_attentions=True, through transformers' generate")
        entrants.append(_Entrant(NaiveSide(family, options.new_tokens), naive, {}))
        sides = [vanilla, *(e.side for e in entrants)]
        progress.set_description("memory")
        measured = [_peaks(side, family, questions, progress) for side in sides]
        did = [_did(e, m.logs[0]) for e, m in zip(entrants, measured[1:], strict=True)]
        progress.set_description("time")
        calls = [partial(side.answer, questions) for side in sides]
        for call in calls:  # once without a profiler, so that the first pair pays for nothing
            call()
            progress.update()
        pairs = in_pairs(calls[0], calls[1:], family.model.device, options.pairs, options.seed, progress.update)
    judged = "total" if family.model.device.type == "cuda" else "working"
    return [
        Cost(
            name=e.side.name,
            parameters=e.parameters,
            case=e.case,
            did=done,
            pairs=tuple(timed),
            peaks=mine.peaks,
            vanilla_peaks=measured[0].peaks,
            judged=judged,
            floor=e.case.floor and e.case.floor(family, questions, mine.logs, options.new_tokens),
        )
        for e, mine, done, timed in zip(entrants, measured[1:], did, pairs, strict=True)
    ]


def _entrant(name: str, family: Family, options: BenchOptions, progress: tqdm) -> _Entrant:
    case = CASES.get(name, Case())  # one from another package has no target
    try:
        method = load_method(name).from_options(case.options)
        side = MethodSide.build(name, family, method, options.batch_size, options.seed, options.new_tokens)
    except OptionError as error:
        raise OptionError(f"{name} cannot be measured: {error}") from error
    progress.update()
    return _Entrant(side, case, method.describe(side.engine.plan))


def _did(entrant: _Entrant, log: dict[str, Any]) -> str:
    if entrant.case.did is None:
        return ""
    did = entrant.case.did(log)
    if not did:
        raise LmmsCaError(f"{entrant.side.name} did nothing on the bench's questions, so its cost says nothing: {log}")
    return did


def _peaks(side: Side, family: Family, questions: Sequence[Question], progress: tqdm) -> _Measured:
    logs: list[dict[str, Any]] = []

    def answer() -> None:
        logs[:] = side.answer(questions)

    found = peaks(answer, family.model.device, held_bytes(family), progress.update)
    return _Measured(found, tuple(logs))
