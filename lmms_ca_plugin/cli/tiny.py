"""`lmms-ca tiny`: the bundled small checkpoint, from its training to its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Train and examine the bundled small checkpoint.", no_args_is_help=True)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="For the states and the checkpoint; a run that stopped goes on.")],
    plan: Annotated[str, typer.Option(help="cpu (2 cores, a night) or gpu.")] = "cpu",
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda.")] = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the products; bfloat16 wants hardware for it.")
    ] = "float32",
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw pictures and questions.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and questions.")] = 0,
    blind: Annotated[bool, typer.Option("--blind", help="Train the text-only model, which sees no picture.")] = False,
) -> None:
    """Train the small checkpoint from nothing on the small world, or go on with a training that stopped."""
    from lmms_ca_plugin.tiny.training.loop import Machine
    from lmms_ca_plugin.tiny.training.mini import plan_for, train_mini

    machine = Machine(device, precision, workers)
    written = train_mini(folder, plan_for(plan), machine, seed, blind=blind)
    print(f"The checkpoint: {written}")
