"""Contrastive attention at mask ratios from 0 to 1, as in the paper's Figure 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._compared import ratios
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:  # noqa: ARG001
    """Vanilla, and eleven ratios."""
    asked.refuse_own("ratio", "contrastive", "rho")
    return ratios(asked.variant)


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """The score at every ratio, and the time where it was measured."""
    return {"ratio": curve(table, caption_of(finished), x_label="share of image tokens masked (rho)")}
