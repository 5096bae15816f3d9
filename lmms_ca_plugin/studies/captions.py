"""The small line under a study's figures."""

from __future__ import annotations

from lmms_ca_plugin.figures.style import Caption
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.results.runs import read_runs


def caption_of(finished: Finished) -> Caption:
    """Says whose numbers a study's are, and what its intervals are.

    All variants answer the same documents, so the first one's files tell how they are clustered.
    """
    runs, _ = read_runs([next(iter(finished.results.values()))])
    alone = [run.task for run in runs if run.cluster_source != "image"]
    clustered = "not clustered" if len(alone) == len(runs) else "clustered by picture"
    but = f", but not on {', '.join(alone)}" if 0 < len(alone) < len(runs) else ""
    return Caption(finished.study.checkpoint.pretrained, f"95 % intervals, {clustered}{but}")
