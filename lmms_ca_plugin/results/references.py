"""References: runs kept in compact form to compare later candidates with, and how a side of a comparison is read.

A reference holds what a comparison needs and no more: scores of the main metric, answers, clusters and digests of the
documents, per task. It is gzipped JSON without time stamps, so that the same run gives the same text; the bytes are
zlib's, and another Python's are others.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.errors import InputError, nearest
from lmms_ca_plugin.results.provenance import Provenance
from lmms_ca_plugin.results.published import folder
from lmms_ca_plugin.results.runs import TaskRun, read_runs

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_END = ".json.gz"
_COLUMNS = ("answer", "cluster", "identity", "prompt")


def places() -> tuple[Path, ...]:
    """Lists where references are looked for: below the working directory, then among those of the package."""
    try:
        carried: tuple[Path, ...] = (folder() / "references",)
    except InputError:
        carried = ()
    return (Path("leaderboards") / "references", *carried)


def _one_run(runs: list[TaskRun], given: str) -> dict[str, TaskRun]:
    """Turns a side's runs into tasks, of one model and method: of several runs of a task the newest counts."""
    origins = [run.provenance for run in runs if run.provenance]
    kinds = {(origin.model, origin.revision, origin.entry, origin.method_args) for origin in origins}
    if len(kinds) > 1:
        names = "; ".join(" ".join(filter(None, kind)) for kind in sorted(kinds))
        raise InputError(
            f"{given} holds runs of several models or methods ({names}). A side of a comparison is one of them: "
            "give its results file, or run each with an --output_path of its own."
        )
    newest: dict[str, TaskRun] = {}
    for run in sorted(runs, key=lambda run: run.provenance.date if run.provenance else ""):
        newest[run.task] = run
    return dict(sorted(newest.items()))


def load_side(given: str | Path) -> dict[str, TaskRun]:
    """Reads one side of a comparison.

    Args:
        given: A run folder, a results file, a sample file, a reference's file, or a reference's name.

    Returns:
        The newest run of each task.

    Raises:
        InputError: It is none of these, holds several models, or is not whole.
    """
    path = Path(given)
    if path.name.endswith(_END) and path.is_file():
        return load_reference(path)
    if path.exists():
        runs, _ = read_runs([path])
        return _one_run(runs, str(given))
    known = {file.name.removesuffix(_END): file for place in reversed(places()) for file in place.glob(f"*{_END}")}
    if str(given) in known:
        return load_reference(known[str(given)])
    raise InputError(
        f"{given} is neither a run folder, a results or sample file, nor a kept reference.{nearest(str(given), known)} "
        f"References: {', '.join(sorted(known)) or 'none'}. Keep one with: lmms-ca regress keep RUN_DIR NAME."
    )


def keep(run_dir: Path, name: str, replace: bool = False) -> Path:
    """Keeps a run as a reference.

    Args:
        run_dir: A run folder, of one model and method.
        name: The reference's name: letters, digits, dots, hyphens and underscores.
        replace: Whether to take the place of a reference that has this name already, the package's own included.

    Returns:
        The file that was written, in `leaderboards/references` below the working directory.

    Raises:
        InputError: The name is not allowed or another run's, or the run cannot be read or has failed documents.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is no name for a reference; letters, digits, dots, hyphens and underscores are allowed."
        )
    tasks = load_side(run_dir)
    for run in tasks.values():
        if run.documents[run.main].isna().any():
            raise InputError(f"{run.source} has failed documents; a reference needs a score of every document.")
    content = {"format": FORMAT, "tasks": {task: _pack(run) for task, run in tasks.items()}}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
    for kept in (place / f"{name}{_END}" for place in places()):
        if not replace and kept.exists() and _text(kept) != text:
            raise InputError(f"{kept} is a reference of this name, of another run. Take another name, or --replace it.")
    target = places()[0] / f"{name}{_END}"
    write_atomically(target, gzip.compress(text, mtime=0))
    return target


def _pack(run: TaskRun) -> dict[str, Any]:
    """Makes a task's run JSON-able."""
    table = run.documents
    packed: dict[str, Any] = {name: getattr(run, name) for name in ("split", "version", "cluster_source")}
    packed |= {"metric": run.main, "doc_id": table.index.tolist(), "score": table[run.main].tolist()}
    packed |= {name: table[name].tolist() for name in _COLUMNS}
    return packed | {"provenance": dataclasses.asdict(run.provenance) if run.provenance else None}


def load_reference(path: Path) -> dict[str, TaskRun]:
    """Reads a kept reference.

    Args:
        path: Its file.

    Returns:
        Its tasks.

    Raises:
        InputError: It is not whole, or of another format.
    """
    text = _text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _not_whole(path, error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is of another format than {FORMAT}; keep the reference again with this version.")
    name = path.name.removesuffix(_END)
    return {task: _unpack(name, task, packed) for task, packed in content["tasks"].items()}


def _text(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is no whole reference ({error}); keep it again, with --replace.")


def _unpack(name: str, task: str, packed: dict[str, Any]) -> TaskRun:
    """Turns a packed task into a run again."""
    columns = {column: packed[column] for column in _COLUMNS}
    documents = pd.DataFrame(
        columns | {packed["metric"]: packed["score"]}, index=pd.Index(packed["doc_id"], name="doc_id")
    )
    origin = Provenance(**packed["provenance"]) if packed["provenance"] else None
    where = f"reference {name}"
    return TaskRun(
        where,
        origin,
        task,
        packed["split"],
        packed["version"],
        (packed["metric"],),
        packed["cluster_source"],
        documents,
    )
