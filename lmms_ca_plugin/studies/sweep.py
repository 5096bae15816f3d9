"""A sweep from its name to its files: results per variant, one tidy table, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmms_ca_plugin.engine.load import describe
from lmms_ca_plugin.figures.save import save
from lmms_ca_plugin.harness.study import Finished, Runner, Study
from lmms_ca_plugin.results.schema import write_atomically
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.sweeps import Sweep, load_sweep
from lmms_ca_plugin.studies.tidy import tidy

FORMS = (".png", ".pdf")


@dataclass(frozen=True)
class Swept:
    """What a sweep left.

    Attributes:
        finished: Its runs.
        table: The tidy table.
        csv: Where the table is.
        figures: Where the figures are.
    """

    finished: Finished
    table: pd.DataFrame
    csv: Path
    figures: tuple[Path, ...]


def planned(name: str, asked: Asked) -> Study:
    """Says what a sweep will run; reads the checkpoint's config, and no weight.

    Args:
        name: The sweep.
        asked: Its settings.

    Raises:
        OptionError: There is no such sweep, or a variant does not fit the checkpoint.
        CheckpointError: The checkpoint cannot be used.
    """
    return asked.study(name, load_sweep(name).variants(asked, describe(asked.checkpoint).trunk))


def sweep(name: str, asked: Asked) -> Swept:
    """Runs a sweep, or what is missing of it, and writes its table and figures.

    Args:
        name: The sweep.
        asked: Its settings.

    Returns:
        Where everything is.

    Raises:
        OptionError: There is no such sweep, or a variant does not fit the checkpoint.
        InputError: The output folder holds another study.
        GenerationError: A question could not be answered; what was answered before is kept.
    """
    runner = Runner(planned(name, asked))
    finished = runner.run()
    seconds = runner.timed(asked.timing) if asked.timing else {}
    return finish(load_sweep(name), finished, seconds)


def finish(definition: Sweep, finished: Finished, seconds: Mapping[str, float]) -> Swept:
    """Writes the table and the figures of a study that has run."""
    study = finished.study
    table = tidy(finished, seconds)
    csv = study.output / f"{study.name}.csv"
    write_atomically(csv, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    figures = []
    for name, figure in definition.figures(finished, table).items():
        for form in FORMS:
            figures.append(study.output / f"{name}{form}")
            save(figure, figures[-1])
    return Swept(finished, table, csv, tuple(figures))
