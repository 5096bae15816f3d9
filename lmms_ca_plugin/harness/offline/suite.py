"""Writing the offline suite, and finding out whether it is there already.

A marker file records the seed, what wrote the suite and the SHA-256 of every file, so that a rerun costs one read of
the files, a damaged suite is mended, and nobody's own folder is ever written into.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import transformers

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness.offline.cards import data_card, suite_card
from lmms_ca_plugin.harness.offline.documents import render_documents
from lmms_ca_plugin.harness.offline.pictures import Picture, load_pictures
from lmms_ca_plugin.harness.offline.tables import Source, Table, data_sets
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint

MARKER = "lmms-ca-suite.json"
_FORMAT = 1
_PAGES = 4


@dataclass(frozen=True)
class Suite:
    """Where the suite's parts are.

    Args:
        folder: The suite; the current directory of every run.
        llava: Checkpoint of the LLaVA-1.5 architecture.
        llava_next: Checkpoint of the LLaVA-NeXT architecture, with grouped-query attention.
        data: Folder of the six data sets.
    """

    folder: Path
    llava: Path
    llava_next: Path
    data: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables a run needs beside the suite's folder as its current directory.

        They keep the run off the network, and its data-set cache inside the suite: `datasets` would otherwise serve
        rows it once cached for another folder of the same relative name (lmms-eval adds a cache of its own choice on
        remote file systems).
        """
        cache = self.folder / ".cache" / "huggingface"
        return {
            "HF_HOME": str(cache),
            "HF_DATASETS_CACHE": str(cache / "datasets"),
            "LMMS_EVAL_DATASETS_CACHE": str(cache / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }


def write_suite(folder: str | PathLike[str], *, seed: int = 0) -> Suite:
    """Writes two small checkpoints with random weights and six data sets.

    Args:
        folder: Where to; made if missing. An intact suite of the same seed is left as it is.
        seed: Seed of the weights and of the rendered document pages.

    Returns:
        The suite's paths, all absolute.

    Raises:
        OptionError: The folder holds something else, or a suite of another seed.
        InputError: A picture of scikit-image or scikit-learn is missing or not the expected one.
    """
    root = Path(folder).resolve()
    suite = Suite(root, root / "llava-tiny-random", root / "llava-next-tiny-random", root / "lmms-lab-encoder")
    marker = {"format": _FORMAT, "seed": seed, "transformers": transformers.__version__}
    if _is_intact(root, marker):
        return suite
    pictures = load_pictures()
    root.mkdir(parents=True, exist_ok=True)
    # Written first without files: an interrupted run leaves a folder that is recognised as ours, and not as complete.
    _write_marker(root, {**marker, "files": {}})
    for part in (suite.llava, suite.llava_next, suite.data, root / ".cache"):
        rmtree(part, ignore_errors=True)
    # Without an end token no answer is empty, so an empty answer in a run on the suite is always a fault.
    write_checkpoint(suite.llava, TinySettings("llava", seed=seed, eos_gain=0.0))
    write_checkpoint(suite.llava_next, TinySettings("llava_next", seed=seed, eos_gain=0.0, num_key_value_heads=2))
    _write_data(suite.data, pictures, seed)
    (root / "README.md").write_text(suite_card(pictures.values(), seed), encoding="utf-8")
    parts = [root / "README.md", *(path for part in (suite.llava, suite.llava_next, suite.data) for path in _in(part))]
    _write_marker(root, {**marker, "files": {path.relative_to(root).as_posix(): _digest(path) for path in parts}})
    return suite


def _is_intact(root: Path, expected: dict[str, Any]) -> bool:
    """Whether the folder holds this very suite; False if it is to be written (anew).

    Raises:
        OptionError: It must not be written.
    """
    if root.exists() and not root.is_dir():
        raise OptionError(f"'{root}' is a file; the offline suite needs a folder.")
    if not root.exists() or not any(root.iterdir()):
        return False
    marker_file = root / MARKER
    if not marker_file.is_file():
        raise OptionError(
            f"'{root}' is not empty and holds no offline suite ({MARKER} is missing). Name a new or an empty folder."
        )
    try:
        found = json.loads(marker_file.read_text(encoding="utf-8"))
        seed, files = found["seed"], dict(found["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"'{marker_file}' cannot be read ({error}). Delete '{root}' or name another folder."
        ) from error
    if seed != expected["seed"]:
        raise OptionError(
            f"'{root}' holds a suite of seed {seed}, not {expected['seed']}. Name another folder, or delete this one."
        )
    same_writer = all(found.get(key) == value for key, value in expected.items())
    return bool(same_writer and files and all(_has(root / name, digest) for name, digest in files.items()))


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path) == digest


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_marker(root: Path, content: dict[str, Any]) -> None:
    (root / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_data(data: Path, pictures: dict[str, Picture], seed: int) -> None:
    source = Source(pictures, render_documents(_PAGES, seed=seed))
    for name, tables in data_sets(source).items():
        for table in tables:
            _write_parquet(data / name / table.folder / f"{table.split}-00000-of-00001.parquet", table)
        (data / name / "README.md").write_text(data_card(name, tables), encoding="utf-8")


def _write_parquet(path: Path, table: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several rows show the same picture; a large dictionary page keeps its bytes once.
    arrow = pa.Table.from_pylist(table.rows, schema=table.features.arrow_schema)
    pq.write_table(arrow, path, dictionary_pagesize_limit=64 << 20)
