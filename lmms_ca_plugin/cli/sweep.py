"""`lmms-ca sweep`: one study, its variants computed together, its table and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmms_ca_plugin.cli._shared import (
    BatchSize,
    Limit,
    MemoryGib,
    ModelArgs,
    Output,
    Pretrained,
    Processes,
    Seed,
    Settings,
    Tasks,
    Timing,
    asked_of,
    open_console,
    show,
    without_network_if_bundled,
)
from lmms_ca_plugin.options import names_in
from lmms_ca_plugin.studies import sweep_module


def sweep(
    names: Annotated[
        str, typer.Argument(help="layermask, scope, ratio, controls, distance or methods; several joined by commas.")
    ],
    pretrained: Pretrained = "mini",
    model_args: ModelArgs = "",
    tasks: Tasks = "mini",
    output: Output = Path("studies"),
    settings: Settings = None,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    seed: Seed = 0,
    timing: Timing = 0,
    memory_gib: MemoryGib = None,
    processes: Processes = 1,
) -> None:
    """Run studies, or what is missing of them: every batch passes once, and each variant from where it differs."""
    wanted = names_in(names)
    for name in wanted:  # before imports that take many seconds
        sweep_module(name)
    without_network_if_bundled([pretrained], tasks)

    from lmms_ca_plugin.studies.sweep import refuse_unused
    from lmms_ca_plugin.studies.sweep import sweep as run

    asked = asked_of(
        [pretrained],
        model_args,
        tasks,
        settings,
        output=output,
        batch_size=batch_size,
        limit=limit,
        seed=seed,
        timing=timing,
        memory_gib=memory_gib,
        processes=processes,
    )
    console = open_console()
    refuse_unused(wanted, asked)
    for name, swept in run(wanted, asked).items():
        console.print(show(swept.table, f"{name} on {pretrained}"))
        for variant, reason in swept.missing.items():
            console.print(f"without {variant}: {reason}", soft_wrap=True)
        console.print(f"table: {swept.csv}\nfigures: {', '.join(map(str, swept.figures))}", soft_wrap=True)
        if swept.agreement is not None:
            console.print(f"beside runs alone: {swept.agreement}", soft_wrap=True)
        folder = swept.finished.study.output
    console.print(f"next: lmms-ca leaderboard {folder} --wide markdown", soft_wrap=True)
