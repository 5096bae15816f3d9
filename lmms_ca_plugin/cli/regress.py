"""`lmms-ca regress`: has a candidate lost against a baseline? Exit status 0 no, 1 yes, 2 cannot compare."""

from __future__ import annotations

import json as json_module
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.options import names_in
from lmms_ca_plugin.results.multiplicity import ALPHA

CANNOT_COMPARE = 2


class _RegressOrKeep(typer.core.TyperGroup):
    """`regress keep ...` is a verb of its own; anything else are the two sides."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Sends everything that does not begin with a sub-verb to `compare`."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["compare", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RegressOrKeep,
    no_args_is_help=True,
    help="Compare a candidate with a baseline: regress BASELINE CANDIDATE (options: regress compare --help). "
    "Or keep a run as a reference: regress keep RUN_DIR NAME.",
)


@contextmanager
def _never_status_1(verb: str) -> Iterator[None]:
    """Ends with status 2 whatever goes wrong inside, because 1 says that something regressed."""
    try:
        yield
    except typer.Exit:
        raise
    except LmmsCaError as error:
        print(f"cannot {verb}: {error}", file=sys.stderr)
        raise typer.Exit(CANNOT_COMPARE) from error
    except Exception as error:  # a fault of ours, too, must not read as a regression
        traceback.print_exc()
        raise typer.Exit(CANNOT_COMPARE) from error


@app.command()
def compare(
    baseline: Annotated[str, typer.Argument(help="Run folder, results file, sample file or kept reference.")],
    candidate: Annotated[str, typer.Argument(help="Likewise.")],
    tolerance: Annotated[float, typer.Option(help="A loss up to so many points is accepted.")] = 1.0,
    alpha: Annotated[float, typer.Option(help="Level of the test, after Holm's adjustment over the tasks.")] = ALPHA,
    tasks: Annotated[
        str, typer.Option(help="Tasks to compare, joined by commas; all of the baseline's by default.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print everything, all flips included, as JSON.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    flips: Annotated[int, typer.Option(min=0, help="Changed documents to show per task.")] = 10,
) -> None:
    """Compare a candidate with a baseline; the word `compare` may be left out."""
    with _never_status_1("compare"):
        from lmms_ca_plugin.atomic import write_atomically
        from lmms_ca_plugin.results.regression import Rules
        from lmms_ca_plugin.results.regression import compare as compare_sides
        from lmms_ca_plugin.results.reports import details, error_junit, headline, to_json, to_junit

        try:
            chosen = [task for task in names_in(tasks) if task]
            found = compare_sides(baseline, candidate, Rules(tolerance / 100, alpha), chosen)
        except LmmsCaError as error:
            print(f"cannot compare: {error}", file=sys.stderr)
            if json:
                print(json_module.dumps({"error": str(error)}, ensure_ascii=False))
            if junit is not None:
                write_atomically(junit, error_junit(str(error)))
            raise typer.Exit(CANNOT_COMPARE) from error
        if junit is not None:
            write_atomically(junit, to_junit(found))
        if json:
            print(to_json(found), end="")
            raise typer.Exit(int(found.regressed))
        print(f"baseline:  {found.baseline}\ncandidate: {found.candidate}")
        print(f"tolerance {tolerance:g} points, alpha {alpha:g}\n")
        for task in found.tasks:
            print("\n    ".join([headline(task), *details(task, flips)]))
        for note in found.notes:
            print(f"note: {note}")
        raise typer.Exit(int(found.regressed))


@app.command()
def keep(
    run_dir: Annotated[Path, typer.Argument(help="Run folder or results file, of one model and method.")],
    name: Annotated[str, typer.Argument(help="The reference's name.")],
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a reference of this name.")] = False,
) -> None:
    """Keep a run as a compact reference under leaderboards/references/."""
    with _never_status_1("keep"):
        from lmms_ca_plugin.results.references import keep as keep_run
        from lmms_ca_plugin.results.references import load_reference

        path = keep_run(run_dir, name, replace)
        held = ", ".join(f"{task} ({len(run.documents):,})" for task, run in load_reference(path).items())
        print(f"kept {path} ({path.stat().st_size / 1024:.1f} KiB): the documents of {held}")
