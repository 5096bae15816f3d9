"""The journal of a study: every batch's answers, written as soon as it is done, so that a run can stop at any moment.

The first line says which study it is of; the others are batches, what a variant is run with, and whose files are whole.
A line that was cut off is taken away, because its batch will be answered again; a line that is not whole in the middle
is refused. Without a batch there is nothing to keep, so a journal that stopped before its first is begun anew, by
whatever study. A study of more documents goes on from one of fewer, and a line says so.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import InputError

FILE = "journal.jsonl"
_SCHEMA = 1
_EXTENDED = "extended"
_EXTENSIBLE = ("limit", "questions")
Key = tuple[str, int]
"""Task and document."""


class Answers(Mapping[str, Mapping[Key, Answer]]):
    """Answers by variant, task and document; the variant that was looked at last is kept unpacked.

    Why they are packed: 33 variants of 246,600 questions have 8 million answers with a log each, several GB as objects.

    Args:
        names: The variants.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._batches: dict[str, list[tuple[Sequence[Key], bytes]]] = {name: [] for name in names}
        self._last: tuple[str, Mapping[Key, Answer]] | None = None

    def add(self, asked: Sequence[Key], answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Takes a batch: by variant each `Answer`'s JSON-able fields. A later answer to a question wins."""
        self._last = None
        for name, of_batch in answers.items():
            self._batches[name].append((asked, zlib.compress(json.dumps(of_batch).encode())))

    def asked(self, name: str) -> set[Key]:
        """The questions that a variant has answered."""
        return {key for asked, _packed in self._batches[name] for key in asked}

    def __getitem__(self, name: str) -> Mapping[Key, Answer]:
        if self._last is None or self._last[0] != name:
            self._last = None  # two variants are never held at a time
            unpacked: dict[Key, Answer] = {}
            for asked, packed in self._batches[name]:
                of_batch = json.loads(zlib.decompress(packed))
                unpacked.update({key: Answer(**answer) for key, answer in zip(asked, of_batch, strict=True)})
            self._last = (name, unpacked)
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Journal:
    """What a study has answered so far; a context that holds the file for one process.

    Args:
        folder: The study's folder; made if missing.
        identity: What the study is, JSON-able.
        part: Digests the questions that the same study would ask with another limit.

    Attributes:
        answers: By variant, task and document.
        facts: By variant, the record of the run that its files carry.
        scored: By variant, of how many answers its files are.
        date: When the study began, as the harness writes dates; the files of all variants bear it.

    Raises:
        InputError: The folder cannot be written, or holds another study, a broken journal, or one that another process
            writes.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], part: Callable[[int], str | None] = lambda _: None
    ) -> None:
        self.path = folder / FILE
        self.part = part
        self.identity = json.loads(json.dumps(identity))
        self.answers = Answers(self.identity["variants"])
        self.facts: dict[str, dict[str, Any]] = {}
        self.scored: dict[str, int] = {}
        self.date = ""
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Opens the file, and reads what is there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error}. Name another output folder.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise InputError(f"{self.path} is being written by another process. Wait for it to end.") from error
        try:
            self._read(self._file)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        assert self._file is not None
        try:
            self._file.close()
        except OSError as error:  # what a full disk did not take is tried once more
            raise self._full(error) from error

    # ---- reading -----------------------------------------------------------------------------------------------------
    def _read(self, file: IO[bytes]) -> None:
        header = self._header(file)
        file.seek(0)
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break  # cut off while it was written
            whole += len(line)
            entry = self._parsed(number, line)
            if number == 1 or _EXTENDED in entry:
                continue
            if "facts" in entry:
                self.facts[entry["variant"]] = entry["facts"]
            elif "scored" in entry:
                self.scored[entry["variant"]] = entry["scored"]
            else:
                if not self.date:
                    self._check(header)
                    self.date = header["date"]
                self.answers.add([(task, doc_id) for task, doc_id in entry["asked"]], entry["answers"])
        if self.date:
            file.truncate(whole)
            told = {name: self.identity[name] for name in _EXTENSIBLE if name in self.identity}
            more = {name: value for name, value in told.items() if header.get(name) != value}
            if more:
                self._append({_EXTENDED: more})
            return
        file.truncate(0)
        self.facts.clear()
        self.date = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
        self._append({"schema": _SCHEMA, "date": self.date, **self.identity})

    def _header(self, file: IO[bytes]) -> dict[str, Any]:
        """Which study the journal is of by now; empty where not even that is whole."""
        file.seek(0)
        header: dict[str, Any] = {}
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") and (number == 1 or line.startswith(f'{{"{_EXTENDED}"'.encode())):
                entry = self._parsed(number, line)
                header |= entry.get(_EXTENDED, entry)
        return header

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise InputError(f"{self.path}, line {number} is not whole JSON ({error}). Name another folder.") from error
        return entry

    def _check(self, header: Mapping[str, Any]) -> None:
        limit, here = header.get("limit"), self.identity.get("limit")
        fewer = limit is not None and (here is None or limit < here) and self.part(limit) == header.get("questions")
        may_differ = _EXTENSIBLE if fewer else ()
        other = [name for name, value in self.identity.items() if header.get(name) != value and name not in may_differ]
        if header.get("schema") != _SCHEMA or other:
            name = other[0] if other else "schema"
            said = _difference(name, header.get(name), self.identity.get(name, _SCHEMA))
            more = "".join(f", and its {of} differs" for of in other[1:] if of != "questions")  # which follow from it
            raise InputError(
                f"{self.path} is of another study: its {said}{more}. Name another output folder, or take the same "
                "settings."
            )

    # ---- writing -----------------------------------------------------------------------------------------------------
    def know(self, variant: str, facts: Mapping[str, Any]) -> None:
        """Writes down once what a variant is run with.

        Raises:
            InputError: The journal was begun with other facts, e.g. other versions of a package.
        """
        told = json.loads(json.dumps(facts))
        if variant not in self.facts:
            self.facts[variant] = told
            self._append({"variant": variant, "facts": told})
        elif self.facts[variant] != told:
            name = next(k for k in {**told, **self.facts[variant]} if told.get(k) != self.facts[variant].get(k))
            raise InputError(
                f"{self.path} was begun with {name}={self.facts[variant].get(name)!r}; now it is {told.get(name)!r}. "
                "Answers of both would be mixed: name another output folder."
            )

    def know_scored(self, variant: str) -> None:
        """Writes down that a variant's files are whole, of the answers that there are now."""
        self.scored[variant] = len(self.answers.asked(variant))
        self._append({"variant": variant, "scored": self.scored[variant]})

    def write(self, asked: Sequence[Key], answers: Mapping[str, Sequence[Answer]]) -> None:
        """Writes a batch down, for good.

        Args:
            asked: Task and document of every question.
            answers: Every variant's answers to these.
        """
        told = json.loads(json.dumps({name: [asdict(a) for a in of_batch] for name, of_batch in answers.items()}))
        self._append({"asked": asked, "answers": told})
        # What is read back has text keys, so what is kept has them too: a resumed study is the same study.
        self.answers.add(asked, told)

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path} cannot be written: {error}. What it holds is kept: make room, and run the same again."
        )


def _difference(name: str, there: Any, here: Any) -> str:
    """Says what differs first, down to the one setting, e.g. `variants.rho_0.rho is '0.1', not '0.2'`."""
    both = isinstance(there, Mapping) and isinstance(here, Mapping)
    for key in {**there, **here} if both else ():
        if there.get(key) != here.get(key):
            return _difference(f"{name}.{key}", there.get(key), here.get(key))
    return f"{name} is {there!r}, not {here!r}"
