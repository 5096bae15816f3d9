"""A layer profile of a checkpoint: the sweep over all blocks in both modes, and what the rule finds in it.

Rule: which picture a document shows is read from the document before anything is answered, so that a calibration set
that cannot be halved by picture is refused before weights are loaded. Two tasks show the same picture where they name
it alike (VQAv2 and OKVQA by its COCO id) or draw the same scene (the mini sets); it is called by the alphabetically
first task that has it, and that task's name for it. A photograph that two sets name differently passes for two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmms_ca_plugin.engine.load import describe
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.figures.save import save_forms
from lmms_ca_plugin.harness.journal import Key
from lmms_ca_plugin.harness.loaded import LoadedTasks
from lmms_ca_plugin.harness.runner import Runner
from lmms_ca_plugin.harness.study import Finished, Study
from lmms_ca_plugin.layer_profile import LayerProfile
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.results.layer_scores import KNOCKOUT, ZERO, from_tables
from lmms_ca_plugin.results.profile_file import write_profile
from lmms_ca_plugin.results.profiles import Profile, ProfileRules, find_profile, sizes_of_halves
from lmms_ca_plugin.results.runs import read_runs
from lmms_ca_plugin.results.schema import BASELINE
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
    return asked.study("profile", [asked.variant(BASELINE, "vanilla"), *masked])


def profile(asked: Asked, output: Path, rules: ProfileRules) -> Profiled:
    """Profiles a checkpoint, or finishes what was begun.

    Args:
        asked: Checkpoint, calibration tasks and their size.
        output: The JSON file.
        rules: When a block counts.

    Returns:
        The profile and its files.

    Raises:
        InputError: Too few blocks or pictures, a task that names no pictures, weights that cannot be told from others,
            or a folder in place of a file.
        GenerationError: A question could not be answered; what was answered before is kept.
    """
    if output.is_dir():
        raise InputError(
            f"output={output} is a folder. Give the file that the profile shall be, e.g. {output}/profile.json."
        )
    runner = Runner(study_of(asked))  # refuses what is unsupported by its config, before weights are fetched
    pictures = pictures_of(runner.answering.tasks)
    sizes_of_halves(list(pictures.values()), rules.seed)
    finished = runner.run()
    trunk = runner.answering.found.trunk
    source = {"tasks": list(asked.tasks), "limit": asked.limit, "seed": asked.seed, "folder": asked.output.name}
    vanilla, *masked = finished.study.variants
    tables = ((*_place(variant), _table(finished, variant, pictures)) for variant in masked)
    scores = from_tables(_table(finished, vanilla, pictures), tables, trunk.num_blocks)
    found = find_profile(scores, trunk.model_type, runner.answering.weights, rules, source)
    write_profile(output, found)
    return Profiled(found, output, _drawn(finished, found.layers))


def pictures_of(tasks: LoadedTasks) -> dict[Key, str]:
    """Finds out which picture every document shows, without a model.

    Args:
        tasks: What is to be asked.

    Returns:
        The picture's name, by task and document; a name is one picture, whatever the task.

    Raises:
        InputError: A task's samples name no picture.
    """
    names: dict[str, str] = {}
    shown: dict[Key, str] = {}
    for name, task in sorted(tasks.tasks.items()):
        chosen = tasks.chosen[name]
        # All documents, the chosen ones or not: what a picture is called, and so its half, must not depend on a limit.
        documents = task.eval_docs_no_media
        for doc_id in range(len(documents)):  # by number: what is not asked may be left out of a walk through them
            doc = documents[doc_id]
            cluster = _cluster(name, task, doc)
            picture = names.setdefault(doc.get("scene") or cluster, f"{name}/{cluster}")
            if chosen is None or doc_id in chosen:
                shown[name, doc_id] = picture
    return shown


def _cluster(name: str, task: Any, doc: Mapping[str, Any]) -> str:
    # The harness's own scorers are not tried: some ask a judge over the network.
    scored = task.process_results(doc, [""]) if task.get_config("cluster_key") == "cluster" else {}
    for logged in scored.values():
        if isinstance(logged, Mapping) and logged.get("cluster") is not None:
            return str(logged["cluster"])
    raise InputError(
        f"Task {name} does not say which picture a document shows, so questions on one picture could fall into both "
        "halves. Take tasks that do: ca_gqa and the other ca_..., or mini_gqa and the other mini_..."
    )


def _table(finished: Finished, variant: Variant, pictures: Mapping[Key, str]) -> pd.DataFrame:
    answers, tables = finished.answers[variant.name], []
    for run in read_runs([finished.results[variant.name]])[0]:
        keys = [(run.task, int(doc_id)) for doc_id in run.documents.index]
        columns = {
            "task": run.task,
            "document": run.documents.index,
            "cluster": [pictures[key] for key in keys],
            "score": run.documents[run.main].to_numpy(),
            "ran_away": [answers[key].runaway for key in keys],
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _place(variant: Variant) -> tuple[str, int]:
    """A masked variant's mode and block."""
    return str(variant.options["mode"]), int(variant.options["layer"])


def _drawn(finished: Finished, found: LayerProfile) -> tuple[Path, ...]:
    table = tidy(finished)
    modes = {v.name: BASELINE if v.name == BASELINE else _place(v)[0] for v in finished.study.variants}
    table["method"] = table["variant"].map(modes)  # a curve per mode
    roles = {"fusion": found.fusion, "post": (found.post,), "review": (found.review,)}
    blocks = {role: [block for block in of_role if block is not None] for role, of_role in roles.items()}
    figure = curve(table, caption_of(finished), x_label="masked block", blocks=blocks)
    return save_forms(figure, finished.study.output / "profile")
