"""The `lmms-eval` command, run as a user runs it, and believed only when its files are whole.

The harness exits with 0 when an evaluation fails, and when it cannot write a file. So a run writes into a hidden
folder, which takes its name when all in it can be read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import InputError, LmmsCaError
from lmms_ca_plugin.harness.record import versions, weights_of
from lmms_ca_plugin.options import spell
from lmms_ca_plugin.results.files import load_results
from lmms_ca_plugin.results.provenance import own_record
from lmms_ca_plugin.results.runs import read_runs

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
        output: A folder of its own, for the harness's files.
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
            Its result file, or None where there is nothing.

        Raises:
            LmmsCaError: The folder holds the result of another run, of other weights or of other versions, with which
                this one would be mixed up, or what is no whole result.
        """
        checkpoint = CheckpointOptions(self.model_args["pretrained"], self.model_args.get("revision"))
        mine: dict[str, Any] = {
            **{"model": self.model, "model_args": self.arguments, "tasks": ",".join(self.tasks), "limit": self.limit},
            **{"weights": weights_of(checkpoint), "versions": versions()},
        }
        files = sorted(self.output.rglob("*_results.json"))
        if not files and self.output.is_dir() and any(self.output.iterdir()):
            raise LmmsCaError(f"{self.output} holds other files than a run's result. Name another output folder.")
        for file in files:
            config = load_results(file)["config"]
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

    @property
    def _part(self) -> Path:
        """Where the harness writes until all is whole."""
        return self.output.with_name(f".{self.output.name}")

    @property
    def log(self) -> Path:
        """What the command prints, while it runs."""
        return self._part / f"{self.model}.log"

    def __call__(self, tell: Callable[[str], object] = lambda _: None) -> Path:
        """Runs the command; what it prints goes to a log file beside the results.

        Args:
            tell: Told every second how far it is.

        Returns:
            The result file.

        Raises:
            LmmsCaError: The command failed, or ended without a whole result; the log's end is in the message.
        """
        rmtree(self._part, ignore_errors=True)
        try:
            self._part.mkdir(parents=True)
        except OSError as error:
            raise LmmsCaError(f"{self.output} cannot be made: {error}. Name another output folder.") from error
        command, environment = replace(self, output=self._part).command, {**os.environ, **self.environment}
        with (
            self.log.open("w") as lines,
            subprocess.Popen(command, env=environment, stdout=lines, stderr=lines) as running,
        ):
            try:
                while (status := _ended(running, TOLD_EVERY)) is None:
                    tell(_progress(self.log))
            except BaseException:
                running.terminate()  # an evaluation that nobody waits for
                raise
        wrong = f"ended with status {status}" if status else _not_whole(self._part)
        if wrong:
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
            raise LmmsCaError(f"{self.model} {wrong}. The end of {self.log}:\n{end}")
        self._part.rename(self.output)
        return next(self.output.rglob("*_results.json"))


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


def _not_whole(folder: Path) -> str:
    """Says what is wrong with the files of a run; nothing where every verb can read them."""
    try:
        read_runs([folder])
    except InputError as error:
        return f"left no whole result: {error}"
    return ""
