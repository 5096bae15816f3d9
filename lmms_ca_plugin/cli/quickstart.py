"""`lmms-ca quickstart`: the whole path, on a machine with no network, no GPU and no weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

TASKS = ("gqa", "textvqa_val")


def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where the suite and the results go.")] = Path("lmms-ca-quickstart"),
    limit: Annotated[int | None, typer.Option(help="Questions per task; all without one.")] = None,
) -> None:
    """Build the offline suite, run vanilla and contrastive attention on it through lmms-eval, and print the scores."""
    from lmms_ca_plugin.harness.command import HarnessRun
    from lmms_ca_plugin.harness.offline import write_suite

    console = Console()
    with console.status("Writing two random checkpoints and six data sets"):
        suite = write_suite(folder)
    results: dict[str, Path] = {}
    traces: dict[str, Path] = {}
    for entry in ("llava_vanilla", "llava_contrastive"):
        output = suite.folder / "results"
        traces[entry] = output / f"{entry}.trace.jsonl"
        traces[entry].unlink(missing_ok=True)
        run = HarnessRun(
            entry,
            {"pretrained": suite.llava, "trace": traces[entry]},
            TASKS,
            output,
            batch_size=4,
            limit=limit,
            folder=suite.folder,
            environment=suite.environment,
        )
        console.print(f"$ {' '.join(run.command)}", style="dim", soft_wrap=True)
        with console.status(f"lmms-eval runs {entry} (its output: {output / entry}.log)"):
            results[entry] = run()
    console.print(_scores(results))
    console.print(
        "The checkpoint's weights are random: these scores only show that the path works. They say nothing about LLaVA."
    )
    console.print(_decisions(traces["llava_contrastive"]))
    for entry in results:
        console.print(f"{entry}: {results[entry]}\n  trace: {traces[entry]}", soft_wrap=True)


def _scores(results: dict[str, Path]) -> Table:
    table = Table("task", "metric", *results, title="Scores, percent")
    read: dict[str, dict[str, Any]] = {
        entry: json.loads(file.read_text())["results"] for entry, file in results.items()
    }
    for task in TASKS:
        metric = "exact_match,none"
        values = [f"{100 * read[entry][task][metric]:.1f}" for entry in results]
        table.add_row(task, metric.partition(",")[0], *values)
    return table


def _decisions(trace: Path) -> Table:
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    table = Table("task", "questions", "pre-integrated block chosen", "masked", title="What contrastive attention did")
    for task in TASKS:
        mine = [r for r in records if r["task"] == task]
        chosen = Counter(r["pre_layer"] for r in mine)
        blocks = ", ".join(f"{block}: {count}x" for block, count in sorted(chosen.items()))
        masked, of = sum(r["masked_tokens"] for r in mine), sum(r["image_tokens"] for r in mine)
        table.add_row(task, str(len(mine)), blocks, f"{masked} of {of} image tokens")
    return table
