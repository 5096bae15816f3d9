"""`lmms-ca bench`: what things cost, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure what methods cost.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure what methods cost."""


@app.command()
def methods(
    device: Annotated[
        str, typer.Option(help="cpu (114 million parameters), or cuda (the 7B shape, bfloat16).")
    ] = "cpu",
    pairs: Annotated[int, typer.Option(help="Timed pairs per method; below 9 no time is judged.")] = 21,
    batch_size: Annotated[int, typer.Option(help="Questions answered together.")] = 1,
    new_tokens: Annotated[int, typer.Option(help="Tokens that every answer has.")] = 4,
    methods: Annotated[str | None, typer.Option(help="Joined by commas; all without it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, questions and order.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="PyTorch's threads on a CPU; its own choice without.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write everything that was measured to this file.")] = None,
) -> None:
    """Measure each method's wall time and peak memory relative to vanilla, on a model with random weights."""
    import time
    from json import dumps

    import torch
    from rich.console import Console

    from lmms_ca_plugin.bench.methods import BenchOptions, measure
    from lmms_ca_plugin.bench.models import build_family
    from lmms_ca_plugin.bench.report import Machine, as_record, as_table, remarks
    from lmms_ca_plugin.errors import InputError

    names = None if methods is None else tuple(name.strip() for name in methods.split(","))
    options = BenchOptions(names, pairs, batch_size, new_tokens, seed)
    if json is not None and not json.parent.is_dir():
        raise InputError(f"json={json}: there is no folder {json.parent}. Make it first.")
    if threads is not None:
        torch.set_num_threads(threads)
    start = time.perf_counter()
    console = Console()
    with console.status("Building the model"):
        family = build_family(device, seed)
    machine = Machine.now(family.model.device)
    costs = measure(family, options)
    seconds = time.perf_counter() - start
    console.print(as_table(costs, options))
    for line in remarks(costs):
        console.print(line, style="dim", highlight=False)
    if json is not None:
        record = as_record(costs, family, options, machine, seconds)
        json.write_text(dumps(record, indent=1) + "\n", encoding="utf-8")
        console.print(f"Everything that was measured: {json}", soft_wrap=True)
