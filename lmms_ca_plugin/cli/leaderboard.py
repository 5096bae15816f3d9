"""`lmms-ca leaderboard`: the harness's files as a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def leaderboard(
    run_dirs: Annotated[list[Path], typer.Argument(help="Run folders (what --output_path named) or results files.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The CSV; rows it holds already are kept or replaced by newer."),
    ] = None,
    wide: Annotated[
        Literal["markdown", "csv", "latex"] | None, typer.Option(help="Print the paper's table shape in this form.")
    ] = None,
    baseline: Annotated[str, typer.Option(help="Method that differences are taken to.")] = "vanilla",
    history: Annotated[bool, typer.Option("--history", help="Keep older rows of the same measurement.")] = False,
) -> None:
    """Make leaderboard rows of the harness's result and sample files."""
    from lmms_ca_plugin.errors import InputError
    from lmms_ca_plugin.results.leaderboard import leaderboard as make
    from lmms_ca_plugin.results.schema import to_csv
    from lmms_ca_plugin.results.wide import render, wide_tables

    if output is not None and output.is_dir():
        raise InputError(f"output={output} is a folder. Give a file, e.g. {output}/leaderboard.csv.")
    board = make(run_dirs, output, baseline, history)
    tables = [render(table, wide) for table in wide_tables(board.rows)] if wide else []
    for note in board.notes:
        print(f"note: {note}", file=sys.stderr)
    if tables:
        print("\n".join(tables), end="")
    elif output is None:
        print(to_csv(board.rows), end="")
    if output is not None:
        print(f"{len(board.rows)} rows in {output}", file=sys.stderr)
