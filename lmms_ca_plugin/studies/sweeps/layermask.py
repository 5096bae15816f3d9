"""The image tokens are taken away at every block in turn, as in the paper's Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._compared import layers
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:
    """Vanilla, and one variant per block; `--set layermask.mode=knockout` takes them away in that block only."""
    asked.refuse_own("layermask", "layermask", "layer")
    return layers(asked.variant, trunk)


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """The score at every block, and the time where it was measured."""
    return {"layermask": curve(table, caption_of(finished), x_label="masked block")}
