"""`lmms-ca explain`: one picture and one question, where the model looks, and what every method answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    image: Annotated[Path, typer.Option(help="The picture.")],
    question: Annotated[str, typer.Option(help="What is asked, word by word; no instruction is added.")],
    pretrained: Annotated[str, typer.Option(help="The checkpoint: a hub id or a folder.")] = "llava-hf/llava-1.5-7b-hf",
    layers: Annotated[
        str | None, typer.Option(help="Blocks whose attention is shown, e.g. 2:14:28; the telling ones without it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="METHOD.NAME=VALUE, e.g. contrastive.review_layer=9; for the checkpoint NAME=VALUE."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 16,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG, PDF or SVG; <picture>-explained.png without it.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write everything that was found to this file.")] = None,
) -> None:
    """Show where a checkpoint looks, what contrastive attention masks, what ViCrop crops, and every method's answer."""
    from json import dumps

    from rich.console import Console

    from lmms_ca_plugin import options
    from lmms_ca_plugin.errors import InputError
    from lmms_ca_plugin.figures.explanation import explanation
    from lmms_ca_plugin.figures.save import check_ending, save
    from lmms_ca_plugin.results.schema import write_atomically
    from lmms_ca_plugin.studies.explain import ExplainOptions
    from lmms_ca_plugin.studies.explain import explain as look
    from lmms_ca_plugin.studies.settings import Settings

    output = output or Path(f"{image.stem}-explained.png")
    check_ending(output)
    if image.resolve() in (output.resolve(), json and json.resolve()):
        raise InputError(f"{image} is the picture itself and would be overwritten. Name another file.")
    wanted = {"max_new_tokens": max_new_tokens} | ({} if layers is None else {"layers": layers})
    chosen = Settings.read(pretrained, settings or [])
    console = Console()
    with console.status("Asking every method"):
        found = look(image, question, chosen, options.build(ExplainOptions, wanted))
    for said in found.explanation.said:
        text = said.text if said.answered else f"not run: {said.text}"
        console.print(f"{said.method:12} {text}", markup=False, highlight=False, soft_wrap=True)
    save(explanation(found.explanation), output)
    console.print(f"\nThe figure: {output}", soft_wrap=True)
    if json is not None:
        write_atomically(json, dumps(found.record, indent=1, ensure_ascii=False) + "\n")
        console.print(f"Everything that was found: {json}", soft_wrap=True)
