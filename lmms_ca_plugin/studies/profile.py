"""A layer profile of a checkpoint: the sweep over all blocks in both modes, and what the rule finds in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmms_ca_plugin.engine.load import describe
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.figures.save import save
from lmms_ca_plugin.harness.study import Finished, Runner, Study, Variant
from lmms_ca_plugin.results.layer_scores import KNOCKOUT, VANILLA, ZERO, from_table
from lmms_ca_plugin.results.profile_file import write_profile
from lmms_ca_plugin.results.profiles import FEWEST_CLUSTERS, Profile, ProfileRules, find_profile
from lmms_ca_plugin.results.runs import read_runs
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.tidy import tidy

MODES = (ZERO, KNOCKOUT)


@dataclass(frozen=True)
class Profiled:
    """What a profile's study left.

    Attributes:
        profile: What was found.
        file: The JSON that `contrastive` takes as `profile=FILE`.
        figures: The curves.
    """

    profile: Profile
    file: Path
    figures: tuple[Path, ...]


def study_of(asked: Asked) -> Study:
    """Says what a profile needs: vanilla, and every block masked in both modes; reads the config alone."""
    blocks = range(describe(asked.checkpoint).trunk.num_blocks)
    masked = [
        asked.variant(f"{mode}_L{n}", "layermask", float(n), layer=n, mode=mode) for mode in MODES for n in blocks
    ]
    return asked.study("profile", [asked.variant(VANILLA, "vanilla"), *masked])


def profile(asked: Asked, output: Path, rules: ProfileRules) -> Profiled:
    """Profiles a checkpoint, or finishes what was begun.

    Args:
        asked: Checkpoint, calibration tasks and their size.
        output: The JSON file.
        rules: When a block counts.

    Returns:
        The profile and its files.

    Raises:
        InputError: Too few blocks or pictures, or weights that cannot be told from others.
        GenerationError: A question could not be answered; what was answered before is kept.
    """
    runner = Runner(study_of(asked))  # refuses what is unsupported by its config, before weights are fetched
    documents = len(runner.tasks.instances())
    if documents < 2 * FEWEST_CLUSTERS:  # those on one picture only tell after the sweep
        raise InputError(
            f"{documents} documents are asked; two halves of at least {FEWEST_CLUSTERS} pictures are needed, one to "
            "find and one to confirm. Take more documents."
        )
    finished = runner.run()
    trunk = runner.found.trunk
    source = {"tasks": list(asked.tasks), "limit": asked.limit, "seed": asked.seed, "folder": asked.output.name}
    scores = from_table(pd.DataFrame(_rows(finished)), trunk.num_blocks)
    found = find_profile(scores, trunk.model_type, runner.weights, rules, source)
    write_profile(output, found)
    return Profiled(found, output, _drawn(finished))


def _rows(finished: Finished) -> Iterator[dict[str, Any]]:
    for variant in finished.study.variants:
        mode, block = _place(variant)
        runs, _ = read_runs([finished.results[variant.name]])
        for run in runs:
            for doc_id, document in run.documents.iterrows():
                yield {
                    "mode": mode,
                    "block": block,
                    "task": run.task,
                    "document": doc_id,
                    "cluster": document["cluster"],
                    "score": document[run.main],
                    "ran_away": finished.answers[variant.name][run.task, int(str(doc_id))].runaway,
                }


def _place(variant: Variant) -> tuple[str, int]:
    """A variant's mode and block; vanilla's block is ignored."""
    return (str(variant.options["mode"]), int(variant.x)) if variant.x is not None else (VANILLA, -1)


def _drawn(finished: Finished) -> tuple[Path, ...]:
    table = tidy(finished)
    modes = {variant.name: _place(variant)[0] for variant in finished.study.variants}
    table["method"] = table["variant"].map(modes)  # a curve per mode
    figure = curve(table, caption_of(finished), x_label="block at which the image tokens are taken away")
    paths = tuple(finished.study.output / f"profile{form}" for form in (".png", ".pdf"))
    for path in paths:
        save(figure, path)
    return paths
