"""Real photographs that scikit-image and scikit-learn carry, read from the installed packages and checked.

`pictures.jsonl` lists them with SHA-256 and licence. The files are not part of this package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from lmms_ca_plugin.errors import InputError


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Args:
        name: How questions refer to it.
        number: Its place in the list, from 1; identifiers in the data sets are made of it.
        content: The file's bytes, PNG or JPEG.
        file_name: The file's name.
        origin: Package and path inside it.
        licence: Licence and attribution.
    """

    name: str
    number: int
    content: bytes
    file_name: str
    origin: str
    licence: str


def load_pictures() -> dict[str, Picture]:
    """Reads every picture of the suite.

    Returns:
        Pictures by name, in the order of the list.

    Raises:
        InputError: A package is not installed, or its picture is missing or another one.
    """
    lines = (files("lmms_ca_plugin.harness.offline") / "pictures.jsonl").read_text(encoding="utf-8").splitlines()
    pictures = [_read(number, json.loads(line)) for number, line in enumerate(lines, start=1)]
    return {picture.name: picture for picture in pictures}


def _read(number: int, entry: dict[str, str]) -> Picture:
    package, path = entry["package"], entry["path"]
    location = _root(package, path) / path
    if not location.is_file():
        raise InputError(
            f"The offline suite needs the picture '{path}' of {package}, but the installed {package} has no such file "
            f"at {location}. Reinstall {package}."
        )
    content = location.read_bytes()
    found = sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise InputError(
            f"The picture '{path}' of the installed {package} is not the one the suite's questions were written for: "
            f"SHA-256 is {found}, expected {entry['sha256']}. Install another version of {package}."
        )
    return Picture(entry["name"], number, content, location.name, f"{package}, {path}", entry["licence"])


def _root(package: str, path: str) -> Path:
    """The folder that holds the package's top module, without importing it."""
    module = path.split("/")[0]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(
            f"The offline suite needs the pictures of {package}, which is not installed. Install {package}."
        )
    return Path(spec.origin).parent.parent
