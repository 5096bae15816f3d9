"""The `lmms-eval` command, run as a user runs it, and believed only when its result file is there.

The harness exits with 0 when an evaluation fails, and all entries of one checkpoint write into one folder; so a run is
recognised by the new result file whose `config.model` is its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.harness.record import versions, weights_of
from lmms_ca_plugin.options import spell
from lmms_ca_plugin.results.provenance import own_record

SHOWN_LINES = 25
TOLD_EVERY = 1.0  # seconds
BAR = re.compile(r"(\d+)/(\d+) \[[^\]]*question")  # an entry's progress bar, as the log has it


@dataclass(frozen=True)
class HarnessRun:
    """One call of `lmms-eval`.

    Attributes:
        model: The entry.
        model_args: Its options.
        tasks: Task names.
        output: The folder for the harness's files.
        batch_size: Questions that pass the model together.
        limit: Documents per task, or None for all.
        environment: Variables beside the present ones.
    """

    model: str
    model_args: Mapping[str, Any]
    tasks: tuple[str, ...]
    output: Path
    batch_size: int = 1
    limit: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> str:
        """The options as `--model_args` takes them."""
        return ",".join(f"{name}={spell(value)}" for name, value in self.model_args.items())

    def earlier(self) -> Path | None:
        """Finds what an earlier call of the same run left in the output folder.

        Returns:
            Its result file, or None where the folder holds no result.

        Raises:
            LmmsCaError: The folder holds the result of another run, of other weights or of other versions, with which
                this one would be mixed up.
        """
        checkpoint = CheckpointOptions(self.model_args["pretrained"], self.model_args.get("revision"))
        mine: dict[str, Any] = {
            **{"model": self.model, "model_args": self.arguments, "tasks": ",".join(self.tasks), "limit": self.limit},
            **{"weights": weights_of(checkpoint), "versions": versions()},
        }
        files = self._results()
        for file in files:
            config = json.loads(file.read_text())["config"]
            # A file of another release, or of another entry, may tell neither.
            found = {**config.get("resolved_cli_args", {}), **own_record(config)}
            if found.get("limit") is not None:
                found["limit"] = int(found["limit"])  # the harness reads --limit 6 as 6.0
            other = {name: found.get(name) for name in mine if found.get(name) != mine[name]}
            if other:
                raise LmmsCaError(f"{file} is of another run: {other}, not {mine}. Name another output folder.")
        return files[-1] if files else None

    @property
    def command(self) -> list[str]:
        """The command line."""
        limit = [] if self.limit is None else ["--limit", str(self.limit)]
        return [
            *(str(Path(sys.executable).with_name("lmms-eval")), "--model", self.model, "--model_args", self.arguments),
            *("--tasks", ",".join(self.tasks), "--batch_size", str(self.batch_size), *limit),
            *("--output_path", str(self.output), "--log_samples", "--timezone", "UTC"),
        ]

    def __call__(self, tell: Callable[[str], object] = lambda _: None) -> Path:
        """Runs the command; its output goes to a log file beside the results.

        Args:
            tell: Told every second how far it is.

        Returns:
            The result file.

        Raises:
            LmmsCaError: The command failed, or ended without a result of this entry; the log's end is in the message.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        before = set(self._results())
        log = self.output / f"{self.model}.log"
        environment = {**os.environ, **self.environment}
        with (
            log.open("w") as lines,
            subprocess.Popen(self.command, env=environment, stdout=lines, stderr=lines) as running,
        ):
            try:
                while (status := _ended(running, TOLD_EVERY)) is None:
                    tell(_progress(log))
            except BaseException:
                running.terminate()  # an evaluation that nobody waits for
                raise
        mine = [file for file in self._results() if file not in before and _model(file) == self.model]
        if status or len(mine) != 1:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
            wrong = f"ended with status {status}" if status else f"left {len(mine)} result files, not 1"
            raise LmmsCaError(f"{self.model} {wrong}. The end of {log}:\n{end}")
        return mine[0]

    def _results(self) -> list[Path]:
        return sorted(self.output.rglob("*_results.json"))


def _ended(running: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Waits for a process: its exit status, or None if it still runs."""
    try:
        return running.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _progress(log: Path) -> str:
    """Says how far a run is, by the last progress bar of its entry in the log."""
    bars = BAR.findall(log.read_text(errors="replace"))
    return f"{bars[-1][0]} of {bars[-1][1]} questions" if bars else "loading"


def _model(result: Path) -> str:
    name: str = json.loads(result.read_text())["config"]["model"]
    return name
