"""Which weights a checkpoint has: a digest that is the same wherever they lie and however they are split into files.

Rule: SHA-256 over config.json and, for every tensor in the order of names, its name, type, shape and three samples of
4 KiB: its first bytes, its last and those in its middle. A 7B checkpoint is 14 GB; its samples are some 8 MB.
Why not the hub's commit: a copy in a folder has none, and an edited README has another one for the same weights.
What it cannot see: an edit of single numbers between the samples. Training moves whole tensors; that it sees.
Of PyTorch's own files, which are ZIP archives, it takes every record's name, size and CRC-32 from the directory; so how
the weights are split into files, and that format itself, make another digest.
Source of the file format: https://github.com/huggingface/safetensors (8 bytes of header length, little-endian; the
header as JSON; the tensors, by offsets from its end) and https://pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from huggingface_hub.errors import HFValidationError
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from lmms_ca_plugin.engine.load import CheckpointOptions
from lmms_ca_plugin.errors import CheckpointError, InputError
from lmms_ca_plugin.layer_profile import read_profile
from lmms_ca_plugin.methods._contract import Method

SAMPLE = 4096


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's bytes lie."""

    name: str
    type: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def checkpoint_sha(options: CheckpointOptions) -> str:
    """Digests a checkpoint.

    Args:
        options: Which checkpoint; of a hub id the files are fetched, as they are when it is loaded.

    Returns:
        64 hexadecimal digits.

    Raises:
        CheckpointError: It cannot be found, or has no config.json or no weights in files that can be told from others.
    """
    digest = hashlib.sha256(_file(options, "config.json").read_bytes())
    safe = _weight_files(options, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME)
    if safe:
        tensors = [tensor for file in safe for tensor in _tensors(file)]
        for tensor in sorted(tensors, key=lambda tensor: tensor.name):
            digest.update(json.dumps([tensor.name, tensor.type, tensor.shape]).encode())
            digest.update(_samples(tensor))
    else:  # only now, because looking for them fetches them
        archives = _weight_files(options, WEIGHTS_INDEX_NAME, WEIGHTS_NAME)
        if not archives:
            raise _absent(options, SAFE_WEIGHTS_NAME)
        digest.update(json.dumps(sorted(record for file in archives for record in _records(options, file))).encode())
    return digest.hexdigest()


def check_profiles(methods: Iterable[Method], options: CheckpointOptions) -> None:
    """Refuses layer profiles of other weights; one that does not say whose it is passes.

    Args:
        methods: What is to be run; their plans fit the checkpoint's config.
        options: Which checkpoint.

    Raises:
        InputError: A profile was found on other weights.
        CheckpointError: A profile says whose it is, but the checkpoint cannot be told from others.
    """
    files = dict.fromkeys(method.profile_file for method in methods if method.profile_file is not None)
    told = {file: sha for file in files if (sha := read_profile(file).checkpoint_sha)}
    if not told:
        return
    found = checkpoint_sha(options)
    for file, sha in told.items():
        if sha != found:
            raise InputError(
                f"profile={file} is of the weights {sha[:12]}, but pretrained={options.pretrained} has {found[:12]}: "
                f"other weights may review the picture at another block. Load the checkpoint that was profiled, or "
                f"make a profile of this one with `lmms-ca profile {options.pretrained}`."
            )


def _found(options: CheckpointOptions, name: str) -> Path | None:
    try:
        found = cached_file(
            options.source,
            name,
            revision=options.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, HFValidationError) as error:  # no such folder or repository, one that is gated, no possible id
        raise CheckpointError(
            f"pretrained={options.pretrained}: {name} cannot be read: {error}\n"
            "Give a local folder, or a hub id that is cached here or can be reached from here."
        ) from error
    return None if found is None else Path(found)


def _file(options: CheckpointOptions, name: str) -> Path:
    found = _found(options, name)
    if found is None:
        raise _absent(options, name)
    return found


def _absent(options: CheckpointOptions, name: str) -> CheckpointError:
    return CheckpointError(
        f"pretrained={options.source}: {name} is not to be had, so its weights cannot be told from others'. "
        "Give a checkpoint with config.json and safetensors files; `save_pretrained` writes them."
    )


def _weight_files(options: CheckpointOptions, index_name: str, name: str) -> list[Path]:
    """Finds the files of one format: those that an index names, or the only one, or none."""
    index = _found(options, index_name)
    if index is None:
        single = _found(options, name)
        return [] if single is None else [single]
    named: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [_file(options, of) for of in sorted(set(named.values()))]


def _records(options: CheckpointOptions, file: Path) -> list[tuple[str, int, int]]:
    """What the directory of a file of PyTorch's says: name, bytes and CRC-32 of every record."""
    if not is_zipfile(file):
        raise CheckpointError(
            f"pretrained={options.source}: {file.name} is no archive of PyTorch 1.6 or later, so its weights cannot be "
            "told from others'. Load the checkpoint and save it again with `save_pretrained`."
        )
    with ZipFile(file) as archive:
        return [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]


def _tensors(file: Path) -> Iterator[_Tensor]:
    with file.open("rb") as read:
        length = int.from_bytes(read.read(8), "little")
        header: dict[str, Any] = json.loads(read.read(length))
    header.pop("__metadata__", None)
    for name, held in header.items():
        start, end = (8 + length + offset for offset in held["data_offsets"])
        yield _Tensor(name, held["dtype"], tuple(held["shape"]), file, start, end)


def _samples(tensor: _Tensor) -> bytes:
    size = tensor.end - tensor.start
    starts = [0] if size <= SAMPLE else [0, (size - SAMPLE) // 2, size - SAMPLE]
    with tensor.file.open("rb") as read:
        parts = []
        for start in starts:
            read.seek(tensor.start + start)
            parts.append(read.read(min(SAMPLE, size)))
    return b"".join(parts)
