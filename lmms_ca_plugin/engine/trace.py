"""The trace: one JSON line per sample, written as soon as its batch is done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmms_ca_plugin.errors import InputError


class Trace:
    """Writes records to a file that did not exist before.

    Args:
        file: The file; each process of a run needs one of its own.

    Raises:
        InputError: It is a folder, holds something already, or cannot be written.
    """

    def __init__(self, file: str) -> None:
        self.path = Path(file)
        try:
            if self.path.is_dir():
                raise InputError(f"trace={file} is a folder. Name a file, like {self.path / 'trace.jsonl'}.")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size:
                raise InputError(f"trace={file} holds an earlier run's records. Name another file, or remove it.")
            self.path.touch()
        except OSError as error:
            raise InputError(f"trace={file} cannot be written: {error}.") from error

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Appends records, one line each.

        Raises:
            InputError: The file cannot be written any more, e.g. because the disk is full.
        """
        told = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        try:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(told)
        except OSError as error:
            raise InputError(f"trace={self.path} cannot be written: {error}.") from error
