"""`lmms-ca ablations`: vanilla and the named controls of contrastive attention, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def ablations(
    rows: Annotated[list[str] | None, typer.Argument(help="Row names, e.g. site_knockout; all without any.")] = None,
    pretrained: Annotated[str, typer.Option(help="The checkpoint: a hub id or a folder.")] = "llava-hf/llava-1.5-7b-hf",
    tasks: Annotated[str, typer.Option(help="Tasks, joined by commas.")] = "ca",
    output: Annotated[Path, typer.Option(help="A folder for one run folder per row.")] = Path("ablations"),
    batch_size: Annotated[int, typer.Option(help="Questions that pass the model together.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Documents per task; all without one.")] = None,
) -> None:
    """Run `vanilla` and the named controls of contrastive attention through lmms-eval, or what is missing."""
    from lmms_ca_plugin.harness.ablations import chosen_rows
    from lmms_ca_plugin.harness.command import HarnessRun

    console = Console()
    chosen = {"vanilla": None, **chosen_rows(tuple(rows or ()))}
    for number, (name, options) in enumerate(chosen.items(), 1):
        run = HarnessRun(
            "llava_vanilla" if options is None else "llava_contrastive",
            {"pretrained": pretrained, **(options or {})},
            tuple(tasks.split(",")),
            (output / name).resolve(),
            batch_size=batch_size,
            limit=limit,
        )
        with console.status(f"{number}/{len(chosen)} {name}: {' '.join(run.command)}"):
            result = run.earlier() or run()
        console.print(f"{number}/{len(chosen)} {name}: {result}", soft_wrap=True)
    folders = " ".join(str(output / name) for name in chosen)
    console.print(f"\nNext: lmms-ca leaderboard {folders} -o {output / 'ablations.csv'}", soft_wrap=True)
