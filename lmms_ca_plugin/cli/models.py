"""`lmms-ca models`: what the harness's own list does not show of a plugin."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from typing import Annotated, Any

import typer
from rich.table import Table

from lmms_ca_plugin.cli._shared import open_console


def models(
    name: Annotated[str | None, typer.Argument(help="One entry, with every option; all entries without one.")] = None,
) -> None:
    """List the entries for `lmms-eval --model`, with the options for `--model_args` and their defaults."""
    from lmms_ca_plugin.errors import OptionError, nearest
    from lmms_ca_plugin.methods import load_method, method_entries, method_names, model_ids

    entries = {called: entry.method for entry in method_entries() for called in model_ids(entry.name)}
    if name is not None and name not in entries:
        known = ", ".join(model_ids(method)[0] for method in method_names())
        raise OptionError(
            f"Unknown entry '{name}'.{nearest(name, entries)} Allowed: {known}, "
            "llava_layermask_L<n>, each also as mllm_..."
        )
    console = open_console()
    for method in method_names() if name is None else (entries[name],):
        cls = load_method(method)
        model_id, alias = model_ids(method)
        console.print(_options(f"{model_id} (also {alias}): {_summary(cls)}", cls))
    console.print(_common())


def _common() -> Table:
    from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
    from lmms_ca_plugin.engine.requests import RunOptions

    return _options("Every entry also takes", CheckpointOptions, InputOptions, RunOptions)


def _options(title: str, *classes: type[Any]) -> Table:
    table = Table("option", "default", "meaning", title=title, title_justify="left", show_lines=False)
    for cls in classes:
        meanings = attribute_docs(cls)
        for field in fields(cls):
            table.add_row(field.name, _default(field), meanings[field.name])
    if not table.rows:
        table.add_row("(none of its own)", "", "")
    return table


def _default(field: Field[Any]) -> str:
    return "required" if field.default is MISSING else str(field.default)


def _summary(cls: type[Any]) -> str:
    return _docstring(cls).split("\n")[0]


def _docstring(cls: type[Any]) -> str:
    return cleandoc(cls.__doc__ or "")  # as Python 3.13 keeps it; older ones keep the source's indentation


def attribute_docs(cls: type[Any]) -> dict[str, str]:
    """Reads the `Attributes:` section of a docstring.

    Args:
        cls: A class with a Google-style docstring.

    Returns:
        What is said of each attribute, on one line.
    """
    section = _docstring(cls).partition("Attributes:")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}
