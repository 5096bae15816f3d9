"""Scores a variant's answers with the harness and writes its files, as a run of its own would have."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any, Never

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from loguru import logger

from lmms_ca_plugin.engine.load import InputOptions
from lmms_ca_plugin.engine.requests import Answer
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.loaded import LoadedTasks
from lmms_ca_plugin.methods import model_ids
from lmms_ca_plugin.options import spell
from lmms_ca_plugin.results.runs import read_runs

# What the record tells of how a run was carried out, as the entries' options call it.
_RECORDED = ("pretrained", "revision", "dtype", "conversation", "image_aspect_ratio", "max_pixels", "seed")
LOG = "harness.log"


class Replay(lmms):  # type: ignore[misc]
    """A model that knows its answers.

    Args:
        answers: By task and document.
        record: The run's record, for the results file.
    """

    is_simple = False

    def __init__(self, answers: Mapping[Key, Answer], record: Mapping[str, Any]) -> None:
        super().__init__()
        self.answers = answers
        self.record = record

    @property
    def batch_sizes(self) -> dict[str, Any]:
        """The run's record; see `entries.Entry.batch_sizes`."""
        return {"lmms_ca": {**self.record, "samples": len(self.answers)}}

    def clean(self) -> None:
        """Keeps the answers: the harness calls this after each evaluation."""

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Looks the answers up; one result per request, in their order."""
        found = [self.answers[str(request.task_name), int(request.doc_id)] for request in requests]
        return [GenerationResult(a.text, TokenCounts(a.prompt_tokens, a.new_tokens)) for a in found]

    def loglikelihood(self, requests: Sequence[Instance]) -> Never:
        """Is never asked; `LoadedTasks.instances` has refused such tasks."""
        raise NotImplementedError(f"{len(requests)} log-likelihoods")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> Never:
        """Is never asked; `LoadedTasks.instances` has refused such tasks."""
        raise NotImplementedError(f"{len(requests)} multi-round requests")


def write_files(replay: Replay, tasks: LoadedTasks, folder: Path, date: str, inputs: InputOptions) -> Path:
    """Has the harness score a variant and writes its results and sample files.

    Args:
        replay: The variant.
        tasks: What was asked.
        folder: The variant's folder; what an earlier part of the study left there is replaced, once all is written.
        date: The study's date, which names the files.
        inputs: How prompts and pictures were prepared, as far as it was said.

    Returns:
        The results file.

    Raises:
        InputError: The harness did not write all of it, as on a full disk, which it only logs.
    """
    record = replay.record
    typed = {"pretrained": record["pretrained"], "revision": record["revision"], **asdict(inputs)}
    model_args = ",".join(f"{name}={value}" for name, value in typed.items() if value is not None)
    part = folder.with_name(f".{folder.name}")
    rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tracker = EvaluationTracker(output_path=str(part))
    with (folder.parent / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        sink = logger.add(log, level="WARNING")
        try:
            results = simple_evaluate(
                model=replay,
                model_args=model_args,
                tasks=list(tasks.tasks.values()),
                task_manager=tasks.manager,
                batch_size=record["batch_size"],
                bootstrap_iters=0,  # every verb computes its own clustered intervals
                evaluation_tracker=tracker,
                cli_args=Namespace(**vars(_alone(record, tasks)), output_path=str(part)),  # submissions go there
                datetime_str=date,
            )
        finally:
            logger.remove(sink)
        samples = results.pop("samples")
        for task, of_task in samples.items():
            results["n-samples"][task]["effective"] = len(of_task)
            for sample in of_task:
                answer = replay.answers[task, sample["doc_id"]]
                sample["lmms_ca"] = {k: v for k, v in asdict(answer).items() if k != "text"}
        name = model_ids(record["entry"])[0]
        results["config"] |= {"model": name, "model_args": model_args}
        results["config"]["resolved_cli_args"].pop("output_path")
        tracker.general_config_tracker.model_source = name
        tracker.save_results_aggregated(results=results, samples=samples, datetime_str=date)
        for task, of_task in samples.items():
            tracker.save_results_samples(task_name=task, samples=of_task)
    try:
        read_runs([part])
    except InputError as error:
        raise InputError(
            f"The harness did not write all files of {folder.name}: the disk is full, or the end of "
            f"{folder.parent / LOG} says why. All answers are kept; run the same again. ({error})"
        ) from error
    rmtree(folder, ignore_errors=True)
    part.rename(folder)
    written = results_file(folder)
    assert written is not None
    return written


def results_file(folder: Path) -> Path | None:
    """Finds the results file in a variant's folder; None where there is none."""
    return next(folder.rglob("*_results.json"), None)


def _alone(record: Mapping[str, Any], tasks: LoadedTasks) -> Namespace:
    """The arguments of the harness's command that runs a variant alone; its results file tells them to whoever reads.

    `subset_seed` is no argument of the harness, whose `--limit` takes the first documents: readers have to know that.
    """
    options = {name: record[name] for name in _RECORDED} | record["parameters"]
    sizes = [len(chosen) for chosen in tasks.chosen.values() if chosen is not None]
    return Namespace(
        # Scores need no pictures, and decoding them once more per variant would cost more than scoring.
        process_with_media=False,
        model=model_ids(record["entry"])[0],
        model_args=",".join(f"{name}={spell(value)}" for name, value in options.items() if value is not None),
        tasks=",".join(tasks.tasks),
        batch_size=record["batch_size"],
        limit=max(sizes, default=None),
        subset_seed=record["seed"] if sizes else None,
    )
