"""`lmms-ca reproduce`: tables or figures of the paper again, beside what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_ca_plugin.cli._shared import (
    BatchSize,
    Limit,
    MemoryGib,
    ModelArgs,
    Output,
    Processes,
    Seed,
    Settings,
    Tasks,
    Timing,
    asked_of,
    open_console,
    without_network_if_bundled,
)
from lmms_ca_plugin.options import names_in
from lmms_ca_plugin.studies import target_module

if TYPE_CHECKING:
    from rich.table import Table

    from lmms_ca_plugin.studies.cost import Cost


def reproduce(
    targets: Annotated[
        str,
        typer.Argument(help="table1, table2, table3, fig2, fig3, fig5, fig6 or fig7; several joined by commas."),
    ],
    pretrained: Annotated[
        list[str] | None, typer.Option(help="A checkpoint at hand: a hub id, a folder, or `mini`; repeatable.")
    ] = None,
    model_args: ModelArgs = "",
    tasks: Tasks = "",
    output: Output = Path("reproduced"),
    settings: Settings = None,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    seed: Seed = 0,
    timing: Timing = 0,
    memory_gib: MemoryGib = None,
    processes: Processes = 1,
    plan: Annotated[
        int, typer.Option(min=0, help="Only estimate the cost, by so many questions answered under all variants.")
    ] = 0,
) -> None:
    """Reproduce tables or figures of the paper: their layout, printed values, ours, differences and intervals."""
    wanted = list(dict.fromkeys(names_in(targets)))
    for name in wanted:  # before imports that take many seconds
        target_module(name)
    names = pretrained or ["mini"]
    tasks = tasks or ("mini" if names == ["mini"] else "ca")
    without_network_if_bundled(names, tasks)
    from dataclasses import replace

    from lmms_ca_plugin.results.markdown import as_markdown
    from lmms_ca_plugin.studies.cost import estimate
    from lmms_ca_plugin.studies.reproduce import plans
    from lmms_ca_plugin.studies.reproduce import reproduce as run
    from lmms_ca_plugin.studies.sweep import refuse_unused
    from lmms_ca_plugin.studies.targets import load_target

    asked = asked_of(
        names,
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
    refuse_unused(list(dict.fromkeys(load_target(name).sweep for name in wanted)), asked)
    checkpoints = [replace(asked.checkpoint, pretrained=name) for name in names]
    console = open_console()
    if plan:
        for name, of in plans(wanted, checkpoints, asked).items():
            console.print(_costs(f"{', '.join(wanted)} on {name}", estimate(of, plan)))
        return
    files: list[Path] = []
    for target, made in run(wanted, checkpoints, asked).items():
        files += made.files
        if made.layout is not None:
            print(as_markdown(list(made.layout.columns), made.layout.to_numpy().tolist(), texts=3))
        else:  # a table holds the reasons in its rows
            for checkpoint, swept in made.swept.items():
                for variant, reason in swept.missing.items():
                    console.print(f"{target} on {checkpoint}, without {variant}: {reason}", soft_wrap=True)
        for checkpoint, told in made.claims.items():
            for claim in told:
                about = f"{target} on {checkpoint}, {claim.task}: {claim.says}"
                printed = f"printed {claim.printed}" if claim.printed else f"nothing printed ({claim.why})"
                console.print(f"{about}: {printed}; ours {claim.ours}", soft_wrap=True)
    if "mini" in names:
        console.print("mini is no checkpoint of the paper: what it does says nothing about LLaVA.", soft_wrap=True)
    console.print("\n".join(["files:", *map(str, dict.fromkeys(files))]), soft_wrap=True)


def _costs(title: str, cost: Cost) -> Table:
    from rich.table import Table

    shown = Table("what", "how much", title=f"Estimated cost: {title}")
    shown.add_row("questions", f"{cost.questions:,}")
    shown.add_row("variants", str(cost.variants))
    more = f", and those by which {', '.join(cost.makes_inputs)} makes its inputs" if cost.makes_inputs else ""
    shown.add_row("block passes per question", f"at most {cost.passes} (one by one: {cost.passes_alone}){more}")
    shown.add_row("timed", f"{cost.probed.questions} questions in {cost.probed.seconds:.1f} s on {cost.device}")
    several = cost.processes > 1
    at_best = f"; in {cost.processes} processes at best {cost.probed.hours / cost.processes:.2f}" if several else ""
    shown.add_row("hours of answering", f"{cost.probed.hours:.2f}{at_best}")
    shown.add_row("memory that branches may use", f"{cost.memory_gib:.1f} GiB")
    return shown
