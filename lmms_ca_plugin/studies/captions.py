"""The small line under a study's figures."""

from __future__ import annotations

from lmms_ca_plugin.figures.style import Caption
from lmms_ca_plugin.harness.study import Finished

INTERVALS = "95 % intervals, clustered by picture"


def caption_of(finished: Finished) -> Caption:
    """Says whose numbers a study's are, and what its intervals are."""
    return Caption(finished.study.checkpoint.pretrained, INTERVALS)
