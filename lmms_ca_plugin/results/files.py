"""The harness's result and sample files: which belong together, and whether they are whole.

lmms-eval 0.7.3 writes `<date>_results.json` and one `<date>_samples_<task>.jsonl` per task into a folder that is named
after the checkpoint only, so that all methods on one checkpoint share it. Files are therefore paired by their date,
and only a results file names the model. Two runs that end in the same second overwrite one results file and append to
one sample file; that shows as duplicate documents and is refused.

Nothing is repaired and nothing is dropped here: a file that is not whole is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_ca_plugin.errors import InputError

_RESULTS = re.compile(r"(?P<date>.+)_results\.json")
_OBJECTS = ("results", "configs", "versions", "higher_is_better", "n-samples", "config")
_NEEDED = (*_OBJECTS, "date")
_SAMPLES = re.compile(r"(?P<date>\d{8}_\d{6})_samples_(?P<task>.+)\.jsonl")


@dataclass(frozen=True)
class RunFiles:
    """One run's results file and its sample files by task; without a results file only for a single sample file."""

    results: Path | None
    samples: dict[str, Path]


def _paired(results: Path) -> RunFiles:
    """Finds the sample files of a results file."""
    match = _RESULTS.fullmatch(results.name)
    if match is None:
        raise InputError(f"{results} is no results file of the harness; its name ends in _results.json.")
    start = f"{match['date']}_samples_"
    samples = {
        path.name.removeprefix(start).removesuffix(".jsonl"): path
        for path in sorted(results.parent.glob("*_samples_*.jsonl"))
        if path.name.startswith(start)
    }
    return RunFiles(results, samples)


def _refuse_orphans(folder: Path, runs: Iterable[RunFiles]) -> None:
    """Refuses sample files whose run left no results file."""
    known = {path for run in runs for path in run.samples.values()}
    orphans = sorted(path for path in _within(folder, "*.jsonl") if _SAMPLES.fullmatch(path.name) and path not in known)
    if orphans:
        names = ", ".join(str(path) for path in orphans[:5]) + (", ..." if len(orphans) > 5 else "")
        raise InputError(
            f"{len(orphans)} sample files have no results file of the same date beside them: {names}. "
            "Their run did not end, or files were moved apart; move them away or run again."
        )


def _within(folder: Path, pattern: str) -> Iterator[Path]:
    """Files below a folder, but not those of a hidden one, in which a study writes what is not whole yet."""
    for file in folder.rglob(pattern):
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def find(path: Path) -> list[RunFiles]:
    """Finds the runs in a folder, or the run that a file belongs to.

    Args:
        path: A folder (searched recursively), a results file or a sample file.

    Returns:
        The runs, oldest first; for a sample file its task alone.

    Raises:
        InputError: Nothing is there, or sample files lack their results file.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; a run folder, a results file or a sample file is needed.")
    if path.is_dir():
        found = sorted(_within(path, "*_results.json"), key=lambda file: (file.name, file))
        runs = [_paired(file) for file in found]
        _refuse_orphans(path, runs)
        if not runs:
            raise InputError(
                f"{path} holds no *_results.json. Give the folder that --output_path named; if the run failed, the "
                "harness wrote none (it exits with status 0 all the same)."
            )
        return runs
    if match := _SAMPLES.fullmatch(path.name):
        results = path.with_name(f"{match['date']}_results.json")
        return [RunFiles(results if results.exists() else None, {match["task"]: path})]
    return [_paired(path)]


def load_results(path: Path) -> dict[str, Any]:
    """Reads a results file.

    Args:
        path: A `*_results.json` of the harness.

    Returns:
        Its content.

    Raises:
        InputError: It is not whole, or not the harness's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not whole JSON ({error}); was the run cut off while it was written?") from error
    if not isinstance(content, dict):
        told = json.dumps(content)[:40]
        raise InputError(f"{path} holds {told}, which is no JSON object: it is no results file of lmms-eval 0.7.")
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is no results file of lmms-eval 0.7.")
    for key in _OBJECTS:
        if not isinstance(content[key], dict):
            raise InputError(f"{path}: its {key} is no JSON object: it is no results file of lmms-eval 0.7.")
    return content


def load_samples(path: Path) -> list[dict[str, Any]]:
    """Reads a sample file.

    Args:
        path: A `*_samples_*.jsonl` of the harness.

    Returns:
        Its samples, by document id (several processes write theirs in turn).

    Raises:
        InputError: A line is not whole, has no document id, or repeats one.
    """
    samples: dict[int, dict[str, Any]] = {}
    try:
        # not splitlines(): answers may hold U+2028, at which it splits as well
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not whole UTF-8 ({error}); was the run cut off while it was written?") from error
    if lines.pop():
        raise InputError(f"{path}: its last line is half-written; the run was cut off. Run it again.")
    for number, line in enumerate(lines, start=1):
        try:
            sample = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not whole JSON ({error}). Run it again.") from error
        doc_id = sample.get("doc_id") if isinstance(sample, dict) else None
        if not isinstance(doc_id, int) or isinstance(doc_id, bool):
            raise InputError(f"{path}, line {number} has no doc_id: it is no sample file of lmms-eval.")
        if doc_id in samples:
            raise InputError(
                f"{path}: document {doc_id} is there twice. Two runs that ended in the same second were appended to "
                "one file; run them again with an --output_path of their own."
            )
        samples[doc_id] = sample
    if not samples:
        raise InputError(f"{path} is empty.")
    return [samples[doc_id] for doc_id in sorted(samples)]
