"""The paper's three tables, and which of their cells a run of ours may stand beside.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", Tables 1 to 3, as printed. The paper calls its measure
"accuracy" and names no scorer, split or prompt, so a published value stands beside a main score for orientation only.
Rule: a printed number stands beside a run only where every option of the run is the paper's setting, which is the
method's default, and what `None` stands for on the paper's checkpoints. An option without a setting here (a layer
profile, generation kwargs, one of another package's entry) makes another experiment.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.options import spell, split_args
from lmms_ca_plugin.scoring.documents import BENCHMARKS

SETS = tuple(BENCHMARKS)
BENCHMARK_OF: dict[str, str] = {f"ca_{name}": name for name in SETS} | {
    "gqa": "gqa",
    "vqav2_val": "vqav2",
    "ok_vqa_val2014": "okvqa",
    "vizwiz_vqa_val": "vizwiz",
    "textvqa_val": "textvqa",
    "docvqa_val": "docvqa",
}
"""The six sets by the names of our tasks and of the harness's own."""


def benchmark_of(task: str) -> str | None:
    """Finds the set of a task: ours, bundled, or the harness's own; None for any other task."""
    return task.removeprefix("mini_") if task.startswith("mini_") else BENCHMARK_OF.get(task)


def printed_model(checkpoint: str) -> str | None:
    """Finds how the paper calls a checkpoint, by the end of its hub id or path; None if it does not know it."""
    name = checkpoint.rstrip("/").lower()
    return next((printed for printed, pattern in _CHECKPOINTS.items() if pattern.search(name)), None)


_CHECKPOINTS = {
    "LLaVA-v1.5": re.compile(r"llava-(v)?1\.5-7b(-hf)?$"),
    "LLaVA-v1.6": re.compile(r"llava-v1\.6-vicuna-7b(-hf)?$"),
}
_METHODS = {"vanilla": "baseline", "llava_hf": "baseline", "llava": "baseline"}
SETTINGS: dict[str, dict[str, Any]] = {
    "contrastive": {
        "scope": "fusion",
        "post_layer": 28,
        "review_layer": 29,
        "rho": 0.2,
        "lam": 1e-9,
        "site": "residual",
        "distance": "hellinger",
        "contrast": "abs",
        "select": "exact",
        "renormalise": True,
        "image_tokens": "all",
        "mask_by": "contrastive",
        "preset": "paper",
    },
    "dola": {
        "layers": "low",
        "norm": False,
        "relative_top": 0.1,
        "divergence": "reference",
        "repetition_penalty": 1.0,
    },
    "layermask": {"mode": "zero"},
    "vicrop": {"map": "rel_att", "layer": 14, "align": "processor", "high_res": False},
}
"""The paper's settings by method, and ours where it is silent (lambda, site, DoLa's bucket)."""
_INPUTS: dict[str, dict[str, Any]] = {
    "LLaVA-v1.5": {"conversation": "vicuna_v1", "image_aspect_ratio": "pad"},
    "LLaVA-v1.6": {"conversation": "vicuna_v1", "image_aspect_ratio": "processor"},
}
LOGGED = frozenset({"log_maps", "save_crops"})
"""Options that change what is kept of a run, and no answer."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table.

    Attributes:
        table: 1, 2 or 3.
        model: As printed.
        method: `baseline`, or our name of the method.
        scope: Table 3's candidates; empty elsewhere.
        cells: Printed text by set and `average`; sets without a value are left out.
    """

    table: int
    model: str
    method: str
    scope: str
    cells: Mapping[str, str]

    @property
    def label(self) -> str:
        """How messages name the row."""
        return f"Table {self.table}, {self.model} {self.scope or self.method}"


def folder() -> Path:
    """Finds the leaderboards that come with the package.

    Returns:
        The folder that the wheel carries, or that of the checkout.

    Raises:
        InputError: There is neither.
    """
    package = Path(__file__).parents[1]
    for place in (package / "_leaderboards", package.parent / "leaderboards"):
        if (place / "published").is_dir():
            return place
    raise InputError("The published tables are missing from this installation; reinstall lmms-ca.")


@cache
def tables() -> tuple[PublishedRow, ...]:
    """Reads the paper's tables.

    Returns:
        All rows, in print order.
    """
    rows: list[PublishedRow] = []
    for number in (1, 2, 3):
        with (folder() / "published" / f"table{number}.csv").open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                cells = {name: line[name] for name in (*SETS, "average") if line[name]}
                method = line.get("method") or "contrastive"
                rows.append(PublishedRow(number, line["model"], method, line.get("scope") or "", cells))
    return tuple(rows)


def not_the_papers(model: str, method: str, method_args: str, own: str | None = None) -> tuple[str, ...]:
    """Lists what makes a run another experiment than the paper's.

    Args:
        model: The checkpoint, as a hub id or a path.
        method: Our method, or the harness's entry.
        method_args: The run's options, `key=value` joined by commas.
        own: The option that the paper varies here, so that any value of it is the paper's.

    Returns:
        Its options with another value than the paper's, as `key=value`; empty if there are none.
    """
    papers = SETTINGS.get(method, {}) | _INPUTS.get(printed_model(model) or "", {})
    return tuple(
        f"{name}={value}"
        for name, value in split_args(method_args).items()
        if name != own and name not in LOGGED and value not in ("None", spell(papers.get(name)))
    )


def published_value(
    model: str, method: str, method_args: str, task: str, table: int | None = None
) -> tuple[float | None, str]:
    """Finds the printed value of the same experiment.

    Args:
        model: The checkpoint, as a hub id or a path.
        method: Our method, or the harness's entry.
        method_args: The run's options, `key=value` joined by commas.
        task: The harness's task name.
        table: The table to look in, because some differ in the last digit; None takes the first that has the cell.

    Returns:
        The value in percent and where it is printed; None and "" if the paper has no such cell.
    """
    benchmark = BENCHMARK_OF.get(task)
    for row in _printed(model, method, method_args):
        if benchmark and benchmark in row.cells and table in (None, row.table):
            return float(row.cells[benchmark]), _source(row)
    return None, ""


def published_average(model: str, method: str, method_args: str, sources: Collection[str]) -> str:
    """Finds the printed average of values that all come from one row, as printed; empty where they do not."""
    rows = [row for row in _printed(model, method, method_args) if _source(row) in sources]
    return rows[0].cells["average"] if len(sources) == len(rows) == 1 else ""


def _printed(model: str, method: str, method_args: str) -> list[PublishedRow]:
    """The rows that print a run's experiment."""
    printed = printed_model(model)
    if not printed or not_the_papers(model, method, method_args, own="scope"):
        return []
    scope = split_args(method_args).get("scope", "fusion") if method == "contrastive" else ""
    name = _METHODS.get(method, method)
    return [
        row
        for row in tables()
        if (row.model.removesuffix("-7B"), row.method) == (printed, name)
        and (row.scope == scope if row.scope else scope in ("", "fusion"))
    ]


def _source(row: PublishedRow) -> str:
    return f"Song et al., Table {row.table}"
