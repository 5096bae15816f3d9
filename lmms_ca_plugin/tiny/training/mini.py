"""Trains the bundled checkpoint, from nothing to a folder that `from_pretrained` loads.

Rule: the vision tower learns first and is then left alone; projector and language model learn on top of it, as in
LLaVA's recipe: first to answer everything, then most of all to compare two things. A text-only model for comparison has
the same size and learns the first course without its pictures. `finish_mini` gives the last course to a checkpoint that
is there already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmms_ca_plugin.devices import title_of
from lmms_ca_plugin.engine.fingerprint import checkpoint_sha
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.errors import InputError, unknown
from lmms_ca_plugin.tiny.model import untrained_model
from lmms_ca_plugin.tiny.portable import make_portable
from lmms_ca_plugin.tiny.processor import build_processor
from lmms_ca_plugin.tiny.settings import TinySettings
from lmms_ca_plugin.tiny.training.answering import AnsweringModel
from lmms_ca_plugin.tiny.training.lessons import COURSES, LessonData
from lmms_ca_plugin.tiny.training.loop import Machine, Origin, Schedule, Trained, train
from lmms_ca_plugin.tiny.training.seeing import Seeing, SeeingData

MINI = TinySettings(
    "llava",
    num_blocks=12,
    hidden_size=128,
    num_heads=4,
    num_key_value_heads=4,
    image_size=128,
    patch_size=16,
    vision_blocks=4,
    vision_hidden_size=192,
    feature_layer=-1,
    mlp_ratio=2.6875,
    max_position_embeddings=1024,
    words="world",
)
"""Sizes of the bundled checkpoint: 64 image tokens a view, 12 decoder blocks, 4.4 million parameters."""


@dataclass(frozen=True)
class TrainingPlan:
    """Schedules of the stages, and of the text-only model's one stage, which soon knows all that text tells."""

    seeing: Schedule
    answering: Schedule
    comparing: Schedule
    refining: Schedule
    finishing: Schedule
    blind: Schedule


PLANS = {
    "cpu": TrainingPlan(
        Schedule(9_000, 64, 2e-3),
        Schedule(5_500, 24, 2e-3),
        Schedule(3_600, 12, 1.5e-3, warmup=100),
        Schedule(1_000, 12, 1e-3, warmup=50),
        Schedule(3_000, 12, 1.2e-3, warmup=100),
        Schedule(1_500, 24, 2e-3),
    ),
    "gpu": TrainingPlan(
        Schedule(8_000, 256, 3e-3),
        Schedule(20_000, 96, 3e-3),
        Schedule(5_000, 96, 1e-3),
        Schedule(2_000, 96, 1e-3),
        Schedule(2_000, 96, 1e-3),
        Schedule(4_000, 96, 3e-3),
    ),
}
"""What fits a machine: 2 CPU cores in a night, or a GPU in well under an hour of computing."""

RECORD = "training.json"
_NAME_ANOTHER = "Name a checkpoint of `lmms-ca tiny train`."


def plan_for(name: str) -> TrainingPlan:
    """Finds a plan by name.

    Raises:
        OptionError: There is no such plan.
    """
    if name not in PLANS:
        raise unknown("training plan", name, PLANS)
    return PLANS[name]


def train_mini(folder: Path, plan: TrainingPlan, machine: Machine, seed: int = 0, *, blind: bool = False) -> Path:
    """Trains a checkpoint, or goes on with one.

    Args:
        folder: Where the stages' states and the checkpoint go; made if missing.
        plan: The schedules.
        machine: What to compute on.
        seed: Of the weights, scenes and questions.
        blind: Whether to train the text-only model instead, which sees no picture.

    Returns:
        The checkpoint's folder, with a record of the training beside the weights.

    Raises:
        InputError: The folder holds the states of another training, or is a file.
    """
    _make(folder)
    torch.manual_seed(seed)
    origin = Origin(seed)
    model: Any = untrained_model(MINI).to(machine.device)
    processor: Any = build_processor(MINI)
    took: dict[str, Trained] = {}
    if not blind:
        seeing = Seeing(model.model.vision_tower, MINI.vision_width).to(machine.device)
        views = SeeingData(processor.image_processor, plan.seeing.batch, MINI.image_size // MINI.patch_size, seed)
        took["seeing"] = train("seeing", seeing, views, seeing.loss, plan.seeing, machine, origin, folder)
    shown = None if blind else processor.image_processor
    courses = {"blind": "answering"} if blind else dict(zip(COURSES, COURSES, strict=True))
    took |= _teach(model, shown, courses, folder, plan, machine, origin)
    return _save(folder / ("blind" if blind else "mini"), model, processor, plan, machine, origin, took)


def finish_mini(folder: Path, pretrained: str, plan: TrainingPlan, machine: Machine, seed: int = 0) -> Path:
    """Gives the last course to a checkpoint of the small world, or goes on with it.

    Args:
        folder: Where the stage's state and the checkpoint go; made if missing.
        pretrained: The checkpoint to begin with; a bundled name, a folder or a hub id.
        plan: The schedules; only that of the last course is used.
        machine: What to compute on.
        seed: Of the scenes and questions.

    Returns:
        The checkpoint's folder; its record names the weights that it began with, with their own record if there is one.

    Raises:
        InputError: The checkpoint is not one of the small world, the folder holds the state of another training, or is
            a file.
        CheckpointError: The checkpoint cannot be used.
    """
    options = CheckpointOptions(pretrained, dtype="float32", device=machine.device)
    begun = load(describe(options), InputOptions())
    model: Any = untrained_model(MINI).to(machine.device)
    processor: Any = build_processor(MINI)
    if begun.processor.tokenizer.get_vocab() != processor.tokenizer.get_vocab():
        raise InputError(f"{pretrained} has another vocabulary than the small world's. {_NAME_ANOTHER}")
    try:
        model.load_state_dict(begun.model.state_dict())
    except RuntimeError as error:
        raise InputError(f"{pretrained} has other sizes than the bundled checkpoint. {_NAME_ANOTHER}") from error
    _make(folder)
    last = list(COURSES)[-1]
    origin = Origin(seed, checkpoint_sha(options))
    took = _teach(model, processor.image_processor, {last: last}, folder, plan, machine, origin)
    record = Path(options.source) / RECORD
    earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    start = {"weights": origin.start, "record": earlier}
    return _save(folder / "mini", model, processor, plan, machine, origin, took, start)


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a training needs a folder. Name another.")
    folder.mkdir(parents=True, exist_ok=True)


def _teach(
    model: Any,
    shown: Any,
    courses: Mapping[str, str],
    folder: Path,
    plan: TrainingPlan,
    machine: Machine,
    origin: Origin,
) -> dict[str, Trained]:
    """Gives courses, by the names of their stages; `shown` is the image processor, or None."""
    model.model.vision_tower.requires_grad_(False).eval()
    answering = AnsweringModel(model)
    took = {}
    for name, course in courses.items():
        schedule: Schedule = getattr(plan, name)
        lessons = LessonData(shown, schedule.batch, MINI.view_tokens, course, origin.seed)
        took[name] = train(name, answering, lessons, answering.loss, schedule, machine, origin, folder)
    return took


def _save(
    folder: Path,
    model: nn.Module,
    processor: Any,
    plan: TrainingPlan,
    machine: Machine,
    origin: Origin,
    took: dict[str, Trained],
    start: dict[str, Any] | None = None,
) -> Path:
    whole: Any = model.to("cpu", torch.float16).eval()  # half the size; read back as float32 on a CPU
    whole.save_pretrained(folder)
    processor.save_pretrained(folder)
    make_portable(folder)
    packages = ("torch", "transformers", "pillow", "lmms-ca")
    record = {
        "seed": origin.seed,
        "schedules": {name: asdict(getattr(plan, name)) for name in took},
        "minutes": {name: round(stage.seconds / 60, 1) for name, stage in took.items()},
        "machine": {
            **asdict(machine),
            "processor": title_of(torch.device(machine.device)),
            "threads": torch.get_num_threads(),
        },
        "versions": {name: version(name) for name in packages},
        "parameters": sum(p.numel() for p in whole.parameters()),
        "start": start,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder
