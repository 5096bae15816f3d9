"""A figure becomes a PDF, SVG or PNG by the name's ending: the same bytes every time, all at once or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures.style import styled

# What would differ from one writing of the same figure to the next is left out of each.
FORMS = (".png", ".pdf")  # to look at, and to print
_METADATA: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".png": {}, ".svg": {"Date": None}}


def check_ending(path: Path) -> None:
    """Refuses a name that says no form a figure can have; to be called before hours of work for it.

    Raises:
        InputError: The ending is not one of the three.
    """
    if path.suffix.lower() not in _METADATA:
        raise InputError(
            f"{path}: a figure cannot be written as '{path.suffix}'. Allowed endings: {', '.join(sorted(_METADATA))}."
        )


def save_forms(figure: Figure, path: Path) -> tuple[Path, ...]:
    """Writes a figure in all of `FORMS`.

    Args:
        figure: One of this folder's, or any other.
        path: Its files' path, without an ending.

    Returns:
        The files.

    Raises:
        InputError: A file cannot be written.
    """
    files = tuple(path.with_name(path.name + form) for form in FORMS)
    for file in files:
        save(figure, file)
    return files


@styled
def save(figure: Figure, path: Path) -> None:
    """Writes a figure; text stays text in PDF and SVG, a PNG has 300 dots per inch.

    Args:
        figure: One of this folder's, or any other.
        path: Its ending says the form; its folder is made if it is missing.

    Raises:
        InputError: The ending is not one of the three, or the file cannot be written.
    """
    check_ending(path)
    ending = path.suffix.lower()
    drawn = io.BytesIO()
    figure.savefig(drawn, format=ending[1:], metadata=_METADATA[ending])
    write_atomically(path, drawn.getvalue())
