"""How long a study's variants took alone, kept beside its journal: to measure it takes as many runs as variants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmms_ca_plugin.atomic import write_atomically
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.engine.timing import Timed

FILE = "timing.json"


@dataclass(frozen=True)
class Timings:
    """What was measured.

    Attributes:
        study: Digest of the study's identity.
        questions: The most that were asked of each task; 0 where nothing was measured.
        device: On what.
        found: By variant and task.
    """

    study: str
    questions: int = 0
    device: str = ""
    found: Mapping[str, Mapping[str, Timed]] = field(default_factory=dict)

    @classmethod
    def kept(cls, folder: Path, identity: Mapping[str, Any]) -> Timings:
        """Reads what the study in a folder has kept; nothing is measured where it is of another."""
        study = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        file = folder / FILE
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if told.get("study") != study:
            return cls(study)
        found = {name: {task: _read(task, one) for task, one in of.items()} for name, of in told["found"].items()}
        return cls(study, told["questions"], told["device"], found)

    def keep(self, folder: Path) -> None:
        """Writes it down."""
        found = {name: {task: _told(one) for task, one in of.items()} for name, of in self.found.items()}
        told = {"study": self.study, "questions": self.questions, "device": self.device, "found": found}
        write_atomically(folder / FILE, json.dumps(told) + "\n")


def _told(timed: Timed) -> dict[str, Any]:
    answers = {doc_id: asdict(answer) for (_task, doc_id), answer in timed.answers.items()}
    return {"seconds": timed.seconds, "answers": answers}


def _read(task: str, told: Mapping[str, Any]) -> Timed:
    answers = {(task, int(doc_id)): Answer(**answer) for doc_id, answer in told["answers"].items()}
    return Timed(told["seconds"], answers)
