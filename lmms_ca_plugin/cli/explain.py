"""`lmms-ca explain`: one picture and one question, where the model looks, and what every method answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmms_ca_plugin.cli._shared import ModelArgs, Pretrained, Settings, held_of, open_console


def explain(
    image: Annotated[Path, typer.Option(help="The picture.")],
    question: Annotated[str, typer.Option(help="What is asked, word by word; no instruction is added.")],
    pretrained: Pretrained = "mini",
    layers: Annotated[
        str | None, typer.Option(help="Blocks whose attention is shown, e.g. 2:14:28; the telling ones without it.")
    ] = None,
    settings: Settings = None,
    model_args: ModelArgs = "",
    max_new_tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 16,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG, PDF or SVG; <picture>-explained.png without it.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write everything that was found to this file.")] = None,
) -> None:
    """Show where a checkpoint looks, what contrastive attention masks, what ViCrop crops, and every method's answer."""
    from dataclasses import replace
    from json import dumps

    from lmms_ca_plugin import options
    from lmms_ca_plugin.atomic import write_atomically
    from lmms_ca_plugin.errors import InputError
    from lmms_ca_plugin.figures.explanation import explanation
    from lmms_ca_plugin.figures.save import check_ending, save
    from lmms_ca_plugin.studies.asked import given_options
    from lmms_ca_plugin.studies.explain import ExplainOptions
    from lmms_ca_plugin.studies.explain import explain as look

    output = output or Path(f"{image.stem}-explained.png")
    check_ending(output)
    if image.resolve() in (output.resolve(), json and json.resolve()):
        raise InputError(f"{image} is the picture itself and would be overwritten. Name another file.")
    if json is not None and json.is_dir():
        raise InputError(f"json={json} is a folder. Give a file, e.g. {json}/{image.stem}.json.")
    checkpoint, inputs = held_of(pretrained, model_args)
    shown = {"max_new_tokens": max_new_tokens} | ({} if layers is None else {"layers": layers})
    wanted = options.build(ExplainOptions, shown)
    wanted = replace(wanted, checkpoint=checkpoint, inputs=inputs, given=given_options(settings or ()))
    console = open_console()
    with console.status("Asking every method"):
        found = look(image, question, wanted)
    for said in found.explanation.said:
        text = said.text if said.answered else f"not run: {said.text}"
        console.print(f"{said.method:12} {text}", markup=False, highlight=False, soft_wrap=True)
    save(explanation(found.explanation), output)
    console.print(f"\nThe figure: {output}", soft_wrap=True)
    if json is not None:
        write_atomically(json, dumps(found.record, indent=1, ensure_ascii=False) + "\n")
        console.print(f"Everything that was found: {json}", soft_wrap=True)
