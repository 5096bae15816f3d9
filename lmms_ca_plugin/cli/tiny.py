"""`lmms-ca tiny`: the bundled small checkpoint, from its training to its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lmms_ca_plugin.cli._shared import BatchSize
from lmms_ca_plugin.options import names_in

app = typer.Typer(help="Train and examine the bundled small checkpoint.", no_args_is_help=True)


Folder = Annotated[Path, typer.Argument(help="For the states and the checkpoint; a run that stopped goes on.")]
PlanName = Annotated[str, typer.Option("--plan", help="cpu (2 cores, a night) or gpu.")]
Device = Annotated[str, typer.Option(help="E.g. cpu or cuda.")]
Products = Annotated[
    Literal["float32", "bfloat16"], typer.Option(help="Of the products; bfloat16 wants hardware for it.")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that draw pictures and questions.")]
Pretrained = Annotated[str, typer.Argument(help="A bundled name, a folder or a hub id.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Questions per set; all 500 without one.")]
Seed = Annotated[int, typer.Option(help="Of weights, scenes and questions.")]


@app.command()
def train(
    folder: Folder,
    plan: PlanName = "cpu",
    device: Device = "cpu",
    precision: Products = "float32",
    workers: Workers = 1,
    seed: Seed = 0,
    blind: Annotated[bool, typer.Option("--blind", help="Train the text-only model, which sees no picture.")] = False,
) -> None:
    """Train the small checkpoint from nothing on the small world, or go on with a training that stopped."""
    from lmms_ca_plugin.tiny.training.loop import Machine
    from lmms_ca_plugin.tiny.training.mini import plan_for, train_mini

    machine = Machine(device, precision, workers)
    written = train_mini(folder, plan_for(plan), machine, seed, blind=blind)
    print(f"The checkpoint: {written}")


@app.command()
def finish(
    folder: Folder,
    pretrained: Pretrained = "mini",
    plan: PlanName = "cpu",
    device: Device = "cpu",
    precision: Products = "float32",
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Give the last course of the training to a checkpoint of the small world, which makes another checkpoint."""
    from lmms_ca_plugin.tiny.training.loop import Machine
    from lmms_ca_plugin.tiny.training.mini import finish_mini, plan_for

    machine = Machine(device, precision, workers)
    print(f"The checkpoint: {finish_mini(folder, pretrained, plan_for(plan), machine, seed)}")


@app.command()
def evaluate(
    pretrained: Pretrained = "mini",
    shown: Annotated[
        str, typer.Option(help="Pictures: own, swapped (another question's) or none; several joined by commas.")
    ] = "own",
    limit: Limit = None,
    batch_size: BatchSize = 32,
) -> None:
    """Answer the mini sets greedily, with a question's own picture, another's or none; beside the most frequent answer.

    Prints the main metric, percent, with its 95 % interval, clustered by scene.
    """
    from lmms_ca_plugin.results.markdown import as_markdown
    from lmms_ca_plugin.scoring.documents import BENCHMARKS
    from lmms_ca_plugin.tiny.evaluation import cells, most_frequent
    from lmms_ca_plugin.tiny.evaluation import evaluate as answer

    found = answer(pretrained, names_in(shown), limit, batch_size)
    lines = {
        **{f"pictures: {way}": scores for way, scores in found.items()},
        "most frequent answer": most_frequent(limit),
    }
    print(as_markdown(["", *BENCHMARKS, "mean"], [[name, *cells(scores)] for name, scores in lines.items()], texts=1))


@app.command()
def kinds(pretrained: Pretrained = "mini", limit: Limit = None, batch_size: BatchSize = 32) -> None:
    """Answer the mini sets greedily and print the main metric, percent, by kind of question."""
    from statistics import fmean

    from lmms_ca_plugin.results.markdown import as_markdown
    from lmms_ca_plugin.tiny.evaluation import by_kind
    from lmms_ca_plugin.tiny.evaluation import evaluate as answer

    found = by_kind(answer(pretrained, limit=limit, batch_size=batch_size)["own"])
    lines = [[*key, str(len(values)), f"{100 * fmean(values):.1f}"] for key, values in found.items()]
    print(as_markdown(["set", "kind", "questions", "score"], lines, texts=2))


@app.command()
def rows(folder: Annotated[Path, typer.Argument(help="For the six parquet files.")]) -> None:
    """Write the rows of the mini sets, as the small world gives them; `tasks/mini` holds those that are shipped."""
    from lmms_ca_plugin.tiny.benchmarks.mini import write_rows

    for file in write_rows(folder):
        print(file)
