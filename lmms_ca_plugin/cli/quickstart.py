"""`lmms-ca quickstart`: six methods on the six mini sets, on a machine with no network, no GPU and no weights."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status

from lmms_ca_plugin.cli._shared import open_console

CHECKPOINT = "mini"
TASKS = ("mini",)
BATCH_SIZE = 32
MASKED_BLOCK = 3
ENTRIES = (
    *("llava_vanilla", "llava_contrastive", f"llava_layermask_L{MASKED_BLOCK}"),
    *("llava_dola", "llava_vicrop", "llava_var"),
)


def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where the results go.")] = Path("lmms-ca-quickstart"),
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per task; all 500 without one.")] = None,
) -> None:
    """Run six methods on the bundled checkpoint through lmms-eval, and compare them with vanilla."""
    from lmms_ca_plugin.harness.command import HarnessRun
    from lmms_ca_plugin.results.leaderboard import leaderboard
    from lmms_ca_plugin.results.wide import render, wide_tables

    console = open_console()
    folder = folder.resolve()
    console.print(
        f"{len(ENTRIES)} methods on six mini sets, by the bundled checkpoint '{CHECKPOINT}' (4.4 million parameters).\n"
        "It shows that the path works and what its numbers look like. It tells nothing about LLaVA.",
        soft_wrap=True,
    )
    outputs = []
    for number, entry in enumerate(ENTRIES, 1):
        # One folder per number of questions: a rerun does only what is missing, and never mixes the two.
        output = folder / ("all" if limit is None else f"limit-{limit}") / entry
        run = HarnessRun(
            entry,
            {"pretrained": CHECKPOINT},
            TASKS,
            output,
            batch_size=BATCH_SIZE,
            limit=limit,
            environment={"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / ".cache")},
        )
        console.print(f"$ {' '.join(run.command)}", style="dim", soft_wrap=True)
        doing = f"{number}/{len(ENTRIES)} {entry}: lmms-eval runs (its output: {run.log})"
        with console.status(doing) as status:
            result = run.earlier() or run(partial(_update, status, doing))
        console.print(f"{number}/{len(ENTRIES)} {entry}: {result}", soft_wrap=True)
        outputs.append(output)
    csv = outputs[0].parent / "leaderboard.csv"
    board = leaderboard(outputs, csv)
    for note in board.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n" + "\n".join(render(table, "markdown") for table in wide_tables(board.rows)))
    console.print(
        f"The table with intervals, paired differences and p-values: {csv}\n"
        "Next: uv run lmms-ca sweep layermask, uv run lmms-ca models, and the README for real weights.",
        soft_wrap=True,
    )


def _update(status: Status, doing: str, how_far: str) -> None:
    status.update(f"{doing}, {how_far}")
