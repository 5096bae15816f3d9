"""Tasks of the harness, loaded once for all variants of a study, with a seeded subset of their documents.

Deviates from the harness's `--limit`, which takes the first documents of a file: files are sorted, so the first are
seldom like the rest. A document keeps its number, so that a subset pairs with a full run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.tasks import TaskManager, get_task_dict

from lmms_ca_plugin.errors import InputError, OptionError, nearest
from lmms_ca_plugin.harness.asked import chat_question, whole_pictures
from lmms_ca_plugin.harness.tasks import task_folder
from lmms_ca_plugin.results.runs import is_score

_LOOKED_AT = 4


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks by name, and the documents of each that are asked.

    Attributes:
        manager: What found them; making another one takes the harness half a minute.
        tasks: The harness's task objects.
        chosen: By task, the numbers of the documents; None are all.
        seed: Of the choice.
    """

    manager: TaskManager
    tasks: Mapping[str, Any]
    chosen: Mapping[str, frozenset[int] | None]
    seed: int = 0

    @property
    def documents(self) -> dict[str, Any]:
        """The data by task and split, as entries know them."""
        return {name: task.dataset for name, task in self.tasks.items()}

    def instances(self) -> list[Instance]:
        """Builds all requests, task after task.

        Raises:
            InputError: A task asks for something else than an answer.
        """
        found: list[Instance] = []
        for name, task in self.tasks.items():
            task.build_all_requests()
            strange = [i.request_type for i in task.instances if i.request_type != "generate_until"]
            if strange:
                raise InputError(f"task {name} asks for {strange[0]}; studies only compare generated answers.")
            found += task.instances
        return found

    def check_scores(self) -> None:
        """Has every task score a blank answer to its first document, before anything is answered.

        Raises:
            InputError: A task's scorer fails, or logs no score from 0 to 1, by which answers could be compared.
        """
        for name, task in self.tasks.items():
            document = task.eval_docs[min(self.chosen[name] or (0,))]
            try:
                logged = task.process_results(document, [""])
            except Exception as error:  # whatever a task's own code raises, the task must be named
                raise InputError(f"task {name}: its scorer fails on a blank answer: {error!r}") from error
            if not any(is_score(value) for value in logged.values()):
                raise InputError(
                    f"task {name}: it logs {', '.join(logged)} of a document, and no score from 0 to 1. Studies "
                    "compare answers document by document; take a task that scores each."
                )

    def digest(self, limit: int | None = None) -> str:
        """Digests what is asked: task, document, text and settings of every request, and some of the pictures.

        Args:
            limit: As if so many documents of each task had been chosen, of those that are; None takes these.

        Returns:
            64 hexadecimal digits; other ones when rows of the data set changed, or the task's prompt. Pictures are
            those of each task's first requests: to decode all of them takes as long as a part of the study.

        Raises:
            InputError: A picture cannot be read.
        """
        digest = hashlib.sha256()
        looked_at = Counter[str]()
        fewer = {name: subset(name, len(task.eval_docs), limit, self.seed) for name, task in self.tasks.items()}
        for request in self.instances():
            among = fewer[str(request.task_name)]
            if among is not None and request.doc_id not in among:
                continue
            text, settings = request.args[0], request.args[2]
            digest.update(json.dumps([request.task_name, request.doc_id, text, settings], default=str).encode())
            looked_at[str(request.task_name)] += 1
            if looked_at[str(request.task_name)] <= _LOOKED_AT:
                with whole_pictures():
                    conversation = chat_question(request, self.documents).read()
                for picture in (picture for message in conversation for picture in message.pictures):
                    digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
        return digest.hexdigest()


def load_tasks(names: Sequence[str], limit: int | None, seed: int) -> LoadedTasks:
    """Loads tasks and chooses their documents.

    Args:
        names: Tasks or groups, ours or the harness's own.
        limit: Documents per task, at least 1; None takes all.
        seed: Of the choice.

    Returns:
        The tasks, each asking its chosen documents alone.

    Raises:
        OptionError: There is no such task, or the limit is below 1.
        InputError: The data of one cannot be loaded.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit={limit} is not allowed. Allowed: 1 and more.")
    manager = _manager(names)
    try:
        tasks = dict(_leaves(get_task_dict(list(names), manager, "chat")))
    except Exception as error:  # what loads data sets raises anything, and tries again before
        raise InputError(
            f"tasks={','.join(names)}: their data cannot be loaded: {_cause(error)}\nThe harness's own data sets come "
            "from the hub, unless they are cached here or lie in a folder of their name under the current directory."
        ) from error
    chosen: dict[str, frozenset[int] | None] = {}
    for name, task in tasks.items():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        chosen[name] = subset(name, len(task.eval_docs), limit, seed)
        _build_once(task, chosen[name])
    return LoadedTasks(manager, tasks, chosen, seed)


def _cause(error: BaseException) -> str:
    """What really happened, below the retries that the harness wraps around it."""
    attempt = getattr(error, "last_attempt", None)
    inner = attempt.exception() if attempt is not None else None
    return _cause(inner) if inner is not None else f"{type(error).__name__}: {error}"


def subset(task: str, documents: int, limit: int | None, seed: int) -> frozenset[int] | None:
    """Chooses documents of a task.

    Args:
        task: Its name.
        documents: How many it has.
        limit: How many are wanted.
        seed: Of the choice; a larger limit takes a superset.

    Returns:
        Their numbers; None where all are wanted.
    """
    if limit is None or limit >= documents:
        return None
    order = list(range(documents))
    Random(f"{seed}:{task}").shuffle(order)
    return frozenset(order[:limit])


def _manager(names: Sequence[str]) -> TaskManager:
    """Looks for the tasks in our folder, and only if one is not there in the harness's thousands."""
    folder = task_folder()
    ours = TaskManager("ERROR", include_path=str(folder), include_defaults=False) if folder else None
    if ours is not None and all(name in ours.all_tasks for name in names):
        return ours
    everything = TaskManager("ERROR", include_path=str(folder) if folder else None)
    for name in names:
        if name not in everything.all_tasks:
            raise OptionError(
                f"Unknown task '{name}'.{nearest(name, everything.all_tasks)} `lmms-eval --tasks list` lists all."
            )
    return everything


def _leaves(tasks: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _leaves(task)
        else:
            yield str(name), task


class _Chosen(Sequence[Any]):
    """Documents in their places; a walk through all, as the harness takes, reads the chosen ones: the others are None.

    Why: to read all 214,354 of VQAv2 takes longer than to score a thousand of them, and each variant is scored.
    """

    def __init__(self, documents: Any, chosen: frozenset[int]) -> None:
        self.documents, self.chosen = documents, chosen

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: Any) -> Any:
        return self.documents[index]

    def __iter__(self) -> Iterator[Any]:
        return (self.documents[i] if i in self.chosen else None for i in range(len(self)))


def _build_once(task: Any, chosen: frozenset[int] | None) -> None:
    """Has a task build its requests once for all variants, and those of the chosen documents alone.

    The harness leaves documents without a request out. It writes answers into requests, so every variant gets its own.
    """
    build = task.build_all_requests
    built: list[Instance] = []

    def build_chosen(**settings: Any) -> None:
        if not built:
            build(**settings)
            built.extend(i for i in task._instances if chosen is None or i.doc_id in chosen)
            if chosen is not None:
                split = task.config.test_split or task.config.validation_split
                task.dataset_no_image = {**task.dataset_no_image, split: _Chosen(task.eval_docs_no_media, chosen)}
        task._instances = [
            replace(i, resps=[], filtered_resps={}, raw_filtered_resps={}, token_counts=[]) for i in built
        ]

    task.build_all_requests = build_chosen
