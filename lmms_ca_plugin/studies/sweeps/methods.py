"""All methods of the paper's comparison beside vanilla, as in its Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.differences import differences
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:  # noqa: ARG001
    """Vanilla and the four methods; DoLa with both of its buckets, of which the paper names none."""
    asked.refuse_own("methods", "dola", "layers")
    return (
        asked.variant("vanilla", "vanilla"),
        asked.variant("contrastive", "contrastive"),
        asked.variant("dola", "dola"),
        asked.variant("dola_high", "dola", layers="high"),
        asked.variant("var", "var"),
        asked.variant("vicrop", "vicrop"),
    )


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """Differences to vanilla."""
    return {"methods": differences(table, caption_of(finished))}
