"""Files that are whole or not there: whatever happens while one is written, nobody reads half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lmms_ca_plugin.errors import InputError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that is either the old one or the whole new one, whatever happens meanwhile.

    Args:
        path: The file; its folder is made if it is missing.
        content: What it is to hold; text becomes UTF-8.

    Raises:
        InputError: The file cannot be written; it is then left as it was.
    """
    try:
        _write(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Name another file.") from error


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
