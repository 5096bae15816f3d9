"""The scorers as local `evaluate` metrics.

`evaluate.load(metric_path("anls"))` gives a metric whose `compute(predictions=..., references=...)` returns the mean;
options of the scorer go to `compute` by name. It needs no network: the script lies in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import evaluate

from lmms_ca_plugin import scoring
from lmms_ca_plugin.errors import InputError, unknown


def metric_path(scorer: str) -> str:
    """Says where the script of a scorer's `evaluate` metric lies.

    Args:
        scorer: A name in `lmms_ca_plugin.scoring.__all__`.

    Returns:
        The path that `evaluate.load` takes.

    Raises:
        OptionError: There is no such scorer.
    """
    if scorer not in scoring.__all__:
        raise unknown("scorer", scorer, scoring.__all__)
    return str(Path(__file__).parent / "metrics" / f"{scorer}.py")


def metric_class(scorer: str) -> type[evaluate.Metric]:
    """Makes the `evaluate.Metric` class of a scorer; the scripts under `metrics/` call it.

    Args:
        scorer: A name in `lmms_ca_plugin.scoring.__all__`.

    Returns:
        A class whose `compute` takes predictions (str), references (one str for GQA, else a list of str each) and the
        scorer's options, and returns `{scorer: mean from 0 to 1}`.
    """
    function = getattr(scoring, scorer)
    text = datasets.Value("string")
    reference = text if scorer == "gqa_accuracy" else datasets.Sequence(text)

    def _info(_: evaluate.Metric) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=function.__doc__,
            citation="See the description's source.",
            inputs_description="predictions: str; references: the accepted answers",
            features=datasets.Features({"predictions": text, "references": reference}),
        )

    def _compute(
        _: evaluate.Metric, predictions: Sequence[str], references: Sequence[Any], **options: Any
    ) -> dict[str, float]:
        if not predictions:
            raise InputError(f"{scorer}: no predictions were given, so that there is no mean.")
        scores = (function(said, given, **options) for said, given in zip(predictions, references, strict=True))
        return {scorer: fmean(scores)}

    return type(scorer, (evaluate.Metric,), {"_info": _info, "_compute": _compute, "__doc__": function.__doc__})
