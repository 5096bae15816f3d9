"""Options that the verbs on studies share, and how their tables are shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lmms_ca_plugin.options import names_in, split_args
from lmms_ca_plugin.results.multiplicity import ALPHA

if TYPE_CHECKING:
    import pandas as pd

    from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
    from lmms_ca_plugin.studies.asked import Asked

Pretrained = Annotated[str, typer.Option(help="The checkpoint: a hub id, a folder, or the bundled `mini`.")]
Tasks = Annotated[str, typer.Option(help="Tasks or groups, joined by commas.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="A folder; a rerun does only what is missing in it.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="METHOD.OPTION=VALUE, e.g. contrastive.review_layer=20; repeatable.")
]
ModelArgs = Annotated[
    str, typer.Option("--model-args", help="How the checkpoint is held, e.g. dtype=bfloat16,device_map=auto.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Questions that pass the model together.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Documents per task, a seeded subset, the same for all; all without one.")
]
Seed = Annotated[int, typer.Option(help="Of the subset, of sampling and of random masks.")]
Timing = Annotated[
    int, typer.Option(min=0, help="Questions by which each variant is timed alone, its answers compared; 0: none.")
]
MemoryGib = Annotated[
    float | None,
    typer.Option("--memory-gib", min=0.001, help="What branches may use beside the weights; measured without."),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes that answer, each on a GPU of its own, or on its part of the cores.")
]

UNCUT = 1000  # characters of a line


def open_console() -> Console:
    """Opens what a verb prints to: in a file or a pipe, unless `COLUMNS` says how wide it is, nothing is cut."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=UNCUT)


def held_of(pretrained: str, model_args: str) -> tuple[CheckpointOptions, InputOptions]:
    """Reads which checkpoint is meant, how it is held, and how prompts and pictures are prepared.

    Raises:
        OptionError: A setting has another form, or names what does not exist.
    """
    from lmms_ca_plugin import options
    from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
    from lmms_ca_plugin.errors import OptionError

    held, prepared = options.split(split_args(model_args), (CheckpointOptions, InputOptions))
    if "pretrained" in held:
        raise OptionError(
            f"--model-args pretrained={held['pretrained']}: a checkpoint has a place of its own. Give it as "
            "--pretrained, or where there is none, as the first argument."
        )
    checkpoint = options.build(CheckpointOptions, {**held, "pretrained": pretrained})
    return checkpoint, options.build(InputOptions, prepared)


def without_network_if_bundled(checkpoints: Sequence[str], tasks: str) -> None:
    """Has no network tried where all checkpoints and tasks are bundled; to be called before anything heavy is imported.

    `huggingface_hub` reads the variable once, as it is imported.
    """
    from lmms_ca_plugin.checkpoints import bundled

    offline = all(name == "mini" or name.startswith("mini_") for name in names_in(tasks))
    if set(checkpoints) <= set(bundled()) and offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def asked_of(checkpoints: Sequence[str], model_args: str, tasks: str, settings: list[str] | None, **more: Any) -> Asked:
    """Makes a study's settings of what was typed, on the first of its checkpoints; `more` are those taken as they are.

    Raises:
        OptionError: A setting has another form, or names what does not exist.
    """
    from lmms_ca_plugin.studies.asked import Asked, given_options

    checkpoint, inputs = held_of(checkpoints[0], model_args)
    return Asked(
        tasks=tuple(dict.fromkeys(names_in(tasks))),
        checkpoint=checkpoint,
        inputs=inputs,
        given=given_options(settings or ()),
        **more,
    )


def show(table: pd.DataFrame, title: str) -> Table:
    """Shows a tidy table: a row per variant, a column per task, scores with their intervals, and differences."""
    tasks = list(dict.fromkeys(table["task"]))
    shown = Table("variant", *tasks, title=f"{title}: percent [95 % interval] (difference to vanilla)")
    for variant, rows in table.groupby("variant", sort=False):
        by_task = {row["task"]: row for _, row in rows.iterrows()}
        shown.add_row(str(variant), *(_cell(by_task[task]) if task in by_task else "" for task in tasks))
    return shown


def _cell(row: pd.Series[float]) -> str:
    text = f"{row['score']:.1f} [{row['ci95_low']:.1f}, {row['ci95_high']:.1f}]"
    if row["delta"] == row["delta"]:  # a number: vanilla has none
        text += f" ({row['delta']:+.1f}{'*' if row['p_holm'] < ALPHA else ''})"
    return text
