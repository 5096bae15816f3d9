"""The paper's three tables, and which of their cells a run of ours may stand beside.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", Tables 1 to 3, as printed. The paper calls its measure
"accuracy" and names no scorer, split or prompt, so a published value stands beside a main score for orientation only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmms_ca_plugin.errors import InputError

SETS = ("gqa", "vqav2", "okvqa", "vizwiz", "textvqa", "docvqa")
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
# Options that, where a run has them, must be the paper's for its numbers to be the same experiment.
_PAPERS_OPTIONS = {
    "contrastive": {
        "rho": "0.2",
        "site": "residual",
        "distance": "hellinger",
        "contrast": "abs",
        "mask_by": "contrastive",
        "preset": "paper",
        "review_layer": "29",
        "post_layer": "28",
    },
}


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


def tables() -> list[PublishedRow]:
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
    return rows


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
    printed = printed_model(model)
    benchmark = BENCHMARK_OF.get(task)
    options = dict(part.split("=", 1) for part in method_args.split(",") if "=" in part)
    expected = _PAPERS_OPTIONS.get(method, {})
    if not printed or not benchmark or any(options.get(key, value) != value for key, value in expected.items()):
        return None, ""
    scope = options.get("scope", "fusion") if method == "contrastive" else ""
    name = _METHODS.get(method, method)
    for row in (row for row in tables() if table in (None, row.table)):
        same_scope = row.scope == scope if row.scope else scope in ("", "fusion")
        if row.model.removesuffix("-7B") == printed and row.method == name and same_scope and benchmark in row.cells:
            return float(row.cells[benchmark]), f"Song et al., Table {row.table}"
    return None, ""
