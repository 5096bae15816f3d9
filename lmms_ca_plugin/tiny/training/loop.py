"""The training loop of every stage: seeded, resumable, with its progress shown.

Rule: the batch of a step depends on the step alone, and everything else that changes is in the checkpoint; so a run
that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lmms_ca_plugin.devices import device_named
from lmms_ca_plugin.errors import InputError

Precision = Literal["float32", "bfloat16"]
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.05
_LARGEST_GRADIENT = 1.0
_LAST_SHARE = 0.05  # of the learning rate, at the end
_SAVE_EVERY = 120.0  # seconds
_SMOOTHING = 0.98
_AHEAD = 4  # batches that a worker draws ahead


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes:
        steps: Batches.
        batch: Pictures in a batch.
        learning_rate: The highest; it rises linearly over `warmup` steps and falls along a cosine.
        warmup: Steps.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 300

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (_LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class Machine:
    """What the training runs on.

    Attributes:
        device: E.g. `cpu` or `cuda`.
        precision: Of the products; weights, norms and losses are float32 all the same.
        workers: Processes that draw pictures and questions.

    Raises:
        OptionError: There is no such device.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    workers: int = 1

    def __post_init__(self) -> None:
        device_named(self.device)


@dataclass(frozen=True)
class Origin:
    """What a training comes from; kept beside its state.

    Attributes:
        seed: Of the data, and of the first weights where no others are given.
        start: The digest of the weights that it begins with; None for those of the seed.
    """

    seed: int
    start: str | None = None


@dataclass(frozen=True)
class Trained:
    """What a stage took.

    Attributes:
        steps: Steps, all told.
        seconds: Of computing, over all resumptions.
    """

    steps: int
    seconds: float


def train(
    name: str,
    modules: nn.Module,
    data: Dataset[Any],
    loss: Callable[[Any], Tensor],
    schedule: Schedule,
    machine: Machine,
    origin: Origin,
    folder: Path,
) -> Trained:
    """Trains until the schedule's end, from where the stage's checkpoint stands.

    Args:
        name: The stage, for the progress bar and the checkpoint, `<name>.pt`.
        modules: What learns; those of its parameters that require a gradient.
        data: Batches by step.
        loss: Batch -> ().
        schedule: How long and how fast.
        machine: Where.
        origin: What the data and the first weights come from.
        folder: Of the checkpoint, which is read if it is there, and written every two minutes and at the end.

    Returns:
        What it took.

    Raises:
        InputError: The checkpoint is of another schedule, origin or model, or the loss is not a number.
    """
    learning = [p for p in modules.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learning if p.ndim > 1]},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=_WEIGHT_DECAY)
    file = folder / f"{name}.pt"
    first, seconds = _resume(file, modules, optimizer, schedule, origin)
    precise = machine.precision == "float32"
    steps = range(first, schedule.steps)
    ahead = _AHEAD if machine.workers else None
    batches = DataLoader(data, None, sampler=steps, num_workers=machine.workers, prefetch_factor=ahead)
    smooth, saved, begun = math.nan, monotonic(), perf_counter()
    with tqdm(total=schedule.steps, initial=first, desc=name, unit="step") as progress:
        for step, batch in enumerate(batches, first):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            with nullcontext() if precise else torch.autocast(machine.device.split(":")[0], torch.bfloat16):
                value = loss(batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning, _LARGEST_GRADIENT)
            optimizer.step()
            now = value.item()
            if not math.isfinite(now):
                raise InputError(f"{name}: the loss is {now} at step {step}. Take a lower learning rate, or float32.")
            smooth = now if math.isnan(smooth) else _SMOOTHING * smooth + (1 - _SMOOTHING) * now
            progress.set_postfix(loss=f"{smooth:.3f}", refresh=False)
            progress.update()
            if step + 1 == schedule.steps or monotonic() - saved > _SAVE_EVERY:
                done = Trained(step + 1, seconds + perf_counter() - begun)
                _save(file, modules, optimizer, schedule, origin, done)
                saved = monotonic()
    return Trained(schedule.steps, seconds + perf_counter() - begun)


def _save(file: Path, modules: nn.Module, optimizer: Any, schedule: Schedule, origin: Origin, done: Trained) -> None:
    learned = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict()}
    state = {**learned, "schedule": schedule, "origin": origin, "done": done}
    half = file.with_suffix(".half")
    torch.save(state, half)
    half.replace(file)


def _resume(file: Path, modules: nn.Module, optimizer: Any, schedule: Schedule, origin: Origin) -> tuple[int, float]:
    if not file.exists():
        return 0, 0.0
    with torch.serialization.safe_globals([Origin, Schedule, Trained]):
        state = torch.load(file, map_location="cpu")
    for what, mine in (("schedule", schedule), ("origin", origin)):
        if state.get(what) != mine:
            raise InputError(f"{file} is of another {what}: {state.get(what)}, not {mine}. Name another folder.")
    try:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{file} is of another model: {error}. Name another folder.") from error
    return state["done"].steps, state["done"].seconds
