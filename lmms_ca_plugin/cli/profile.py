"""`lmms-ca profile`: which blocks of a checkpoint fuse picture and text, and whether one reviews the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_ca_plugin.cli._shared import (
    BatchSize,
    Limit,
    MemoryGib,
    ModelArgs,
    Processes,
    Seed,
    Tasks,
    asked_of,
    open_console,
    without_network_if_bundled,
)
from lmms_ca_plugin.results.multiplicity import ALPHA

if TYPE_CHECKING:
    from rich.table import Table

    from lmms_ca_plugin.results.profiles import Profile


def profile(
    checkpoint: Annotated[str, typer.Argument(help="A hub id, a folder, or the bundled `mini`.")] = "mini",
    tasks: Tasks = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON file.")] = Path("profile.json"),
    folder: Annotated[
        Path | None,
        typer.Option(help="For the sweep's runs; a rerun does only what is missing. Without it, studies/CHECKPOINT."),
    ] = None,
    margin: Annotated[float, typer.Option(help="Points that a drop's lower bound has to lie above.")] = 5.0,
    alpha: Annotated[float, typer.Option(help="Level of each half, after Holm's adjustment.")] = ALPHA,
    model_args: ModelArgs = "",
    batch_size: BatchSize = 8,
    limit: Limit = None,
    seed: Seed = 0,
    memory_gib: MemoryGib = None,
    processes: Processes = 1,
) -> None:
    """Find a checkpoint's fusion, post-integrated and review blocks on a calibration set, and write them down."""
    tasks = tasks or ("mini_gqa" if checkpoint == "mini" else "ca_gqa")
    without_network_if_bundled([checkpoint], tasks)

    from lmms_ca_plugin.results.profiles import ProfileRules
    from lmms_ca_plugin.studies.asked import folder_of
    from lmms_ca_plugin.studies.profile import profile as find

    folder = folder or Path("studies") / folder_of(checkpoint)
    asked = asked_of(
        [checkpoint],
        model_args,
        tasks,
        None,
        output=folder,
        batch_size=batch_size,
        limit=limit,
        seed=seed,
        memory_gib=memory_gib,
        processes=processes,
    )
    made = find(asked, output, ProfileRules(margin / 100, alpha, seed))
    layers = made.profile.layers
    console = open_console()
    console.print(_curves(made.profile, f"{checkpoint} on {tasks}: points lost with the image tokens taken away"))
    console.print(f"fusion blocks: {', '.join(map(str, layers.fusion)) or 'none found'}")
    review = (
        f"{layers.review}, and the post-integrated block {layers.post}" if layers.review is not None else "none found"
    )
    console.print(f"review block: {review}")
    for test in made.profile.tests:
        if test.verdict == "not confirmed":
            console.print(f"block {test.block} was found as {test.role} on one half, and not confirmed on the other")
    if layers.review is None:
        console.print("contrastive refuses a profile without a review block; name one with review_layer to try it.")
    console.print(f"profile: {made.file}\nfigures: {', '.join(map(str, made.figures))}", soft_wrap=True)


def _curves(profile: Profile, title: str) -> Table:
    from rich.table import Table

    shown = Table("block", "zero", "95 %", "knockout", "95 %", "runaway", title=title)
    for at in profile.curves:
        cells = []
        for point in (at.zero, at.knockout):
            if point is None:
                cells += ["", ""]
            else:
                cells += [f"{100 * point.drop:.1f}", f"[{100 * point.low:.1f}, {100 * point.high:.1f}]"]
        runaway = "" if at.zero.runaway is None else f"{100 * at.zero.runaway.mean:.1f} %"
        shown.add_row(str(at.block), *cells, runaway)
    return shown
