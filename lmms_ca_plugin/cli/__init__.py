"""`lmms-ca`: one file per verb; the file name is the verb. A verb is thin, and its module imports nothing heavy."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

import typer
from rich.console import Console

from lmms_ca_plugin.errors import LmmsCaError


def build() -> typer.Typer:
    """Builds the command line from the files of this folder.

    A file `offline_suite.py` gives the verb `offline-suite`: its function of the same name, or its typer app `app`.
    """
    app = typer.Typer(
        help="Training-free methods for multimodal LLMs in lmms-eval.", no_args_is_help=True, add_completion=False
    )
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name.startswith("_"):
            continue
        name = module_info.name
        module = import_module(f"{__name__}.{name}")
        verb = name.replace("_", "-")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb)(getattr(module, name))
    return app


def main() -> None:
    """Runs the command line; an error that was foreseen ends it with its message and status 1."""
    try:
        build()()
    except LmmsCaError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        print(error, file=sys.stderr)
        sys.exit(1)
