"""How far every block's image attention is from the last block's, as in the paper's Figure 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.distances import distances as distances_figure
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.methods.distance import Distance
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.tidy import distances

_LABELS = {"hellinger": "Hellinger distance", "jsd": "Jensen-Shannon divergence"}


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:  # noqa: ARG001
    """One variant, which answers as vanilla and logs its attention maps' distances."""
    return (asked.variant("distance", "distance"),)


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:  # noqa: ARG001
    """The distance at every block, over the documents of each task."""
    (variant,) = finished.study.variants
    method = variant.made()
    assert isinstance(method, Distance)
    found, label = distances(finished.answers["distance"]), _LABELS[method.distance]
    return {"distance": distances_figure(found, caption_of(finished), y_label=label, to_block=method.to_layer)}
