"""The costs as a JSON record, complete enough to be judged again, and as a table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table

from lmms_ca_plugin.bench.estimate import CONFIDENCE, Estimate
from lmms_ca_plugin.bench.floor import Floor
from lmms_ca_plugin.bench.methods import BenchOptions, Cost
from lmms_ca_plugin.bench.models import held_bytes
from lmms_ca_plugin.devices import cores, title_of
from lmms_ca_plugin.families._contract import Family

SCHEMA = 2
PACKAGES = ("lmms-ca", "lmms_eval", "transformers", "numpy", "scipy", "pillow", "tokenizers")


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured.

    Attributes:
        device: `cpu`, or the GPU with its number.
        device_name: The GPU's or the processor's name.
        cores: Processor cores that this process may use.
        threads: Threads that PyTorch computes with.
        load_before: Processes that wanted a core in the minute before; about 0 on an idle machine.
        started: UTC.
    """

    device: str
    device_name: str
    cores: int
    threads: int
    load_before: float
    started: str

    @classmethod
    def now(cls, device: torch.device) -> Machine:
        """Describes this machine before the first run."""
        return cls(
            device=str(device),
            device_name=title_of(device),
            cores=cores(),
            threads=torch.get_num_threads(),
            load_before=os.getloadavg()[0],
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def as_record(
    bench: str, measured: dict[str, Any], family: Family, options: Any, machine: Machine, seconds: float
) -> dict[str, Any]:
    """Gathers everything that was set, measured and concluded.

    Args:
        bench: Its name.
        measured: What it found; see `of_methods` and its siblings.
        family: The model.
        options: How it was measured, a dataclass.
        machine: Where.
        seconds: How long the whole took.

    Returns:
        What a JSON file can hold.
    """
    trunk, model = family.trunk, family.model
    return {
        "schema": SCHEMA,
        "bench": bench,
        "options": asdict(options),
        "machine": asdict(machine),
        "seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "torch": torch.__version__,  # with its build
        },
        "model": {
            **asdict(trunk),
            "parameters": sum(p.numel() for p in model.parameters()),
            "held_bytes": held_bytes(family),
            "dtype": str(model.dtype).removeprefix("torch."),
            "image_tokens": model.config.image_seq_length,
            "vision_blocks": model.config.vision_config.num_hidden_layers,
            "attn_implementation": family.text_config._attn_implementation,
        },
        "confidence": CONFIDENCE,
        **measured,
    }


def of_methods(costs: Sequence[Cost]) -> dict[str, Any]:
    """The record of `bench methods`."""
    return {"costs": {cost.name: _cost(cost) for cost in costs}}


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "parameters": cost.parameters,
        "note": cost.case.note,
        "did": cost.did,
        "targets": {"time": cost.case.time, "memory": cost.case.memory},
        "verdicts": cost.verdicts,
        "verdict": cost.verdict,
        "time": asdict(cost.time),
        "pairs": [asdict(pair) for pair in cost.pairs],
        "memory_judged": cost.judged,
        "memory": {which: asdict(cost.memory(which)) for which in ("working", "total")},
        "peaks": [asdict(peak) for peak in cost.peaks],
        "vanilla_peaks": [asdict(peak) for peak in cost.vanilla_peaks],
        "floor": cost.floor and {**asdict(cost.floor), "ratio": cost.floor.ratio},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # lmms-eval is not needed, and the package itself may be run from its source
        return None


# ---- the table -------------------------------------------------------------------------------------------------------
def as_table(costs: Sequence[Cost], options: BenchOptions) -> Table:
    """Renders the costs relative to vanilla, with each median's interval and verdict."""
    judged = {"working": "beyond the weights", "total": "weights included"}[costs[0].judged]
    table = Table(
        title=f"Cost relative to vanilla: {options.pairs} pairs, batch {options.batch_size}, "
        f"{options.new_tokens} new tokens",
        caption=f"Time: median with its {CONFIDENCE:.0%} interval. Memory: peak {judged}, range of its passes. "
        "A target inside its interval, or without one, is undecided.",
    )
    for heading in ("method", "seconds", "time", "target", "memory", "target"):
        table.add_column(heading, justify="left" if heading in ("method", "target") else "right", no_wrap=True)
    for cost in costs:
        table.add_row(
            cost.name,
            f"{statistics.median(pair.own for pair in cost.pairs):.2f}",
            interval(cost.time),
            _target(cost, "time", cost.case.time),
            interval(cost.memory(cost.judged)),
            _target(cost, "memory", cost.case.memory),
        )
    return table


def remarks(costs: Sequence[Cost]) -> list[str]:
    """Says what the methods did, with which options and why, and what the counted floor is."""
    lines = []
    for cost in costs:
        options = ", ".join(f"{name}={value}" for name, value in cost.case.options.items())
        said = "; ".join(part for part in (options, cost.case.note, cost.did) if part)
        if said:
            lines.append(f"{cost.name}: {said}.")
        if cost.floor is not None:
            lines.append(f"{cost.name}: {_floor(cost.floor)}")
    return lines


def _floor(floor: Floor) -> str:
    mine, its = floor.method, floor.vanilla
    return (
        f"its floor by operation count is {floor.ratio:.2f}: {mine.block_tokens:,} positions through a block against "
        f"{its.block_tokens:,}, {mine.pictures} pictures through the vision tower against {its.pictures}, "
        f"{mine.operations:.3g} multiply-adds against {its.operations:.3g}."
    )


def interval(estimate: Estimate) -> str:
    """A median with its interval, or a dash where there is none."""
    median = f"{estimate.median:.3f}"
    if estimate.low is None or estimate.high is None:
        return f"{median} (-)"
    return median if estimate.low == estimate.high else f"{median} ({estimate.low:.3f} to {estimate.high:.3f})"


def _target(cost: Cost, measure: str, target: float | None) -> str:
    return "" if target is None else f"{target:.2f} {cost.verdicts[measure]}"
