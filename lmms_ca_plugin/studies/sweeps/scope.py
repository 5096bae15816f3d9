"""Contrastive attention with each range of candidates for the pre-integrated block, as in the paper's Table 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.chosen import chosen as chosen_figure
from lmms_ca_plugin.figures.differences import differences
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._compared import scopes
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.tidy import chosen


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:  # noqa: ARG001
    """Vanilla, the checkpoint's own fusion blocks, and the three ranges.

    Raises:
        OptionError: Another control masks than the contrast, and so no candidate is ever compared.
    """
    mask_by = asked.given.get("contrastive", {}).get("mask_by", "contrastive")
    if mask_by != "contrastive":
        raise OptionError(
            f"contrastive.mask_by={mask_by} compares no candidate blocks, so scopes do not differ under it. Allowed in "
            "the sweep scope: contrastive. The sweep controls shows what mask_by does."
        )
    scope = asked.given.get("contrastive", {}).get("scope", "fusion")
    if scope in ("all", "deep", "shallow"):
        raise OptionError(
            f"contrastive.scope={scope}: in the sweep scope it says which blocks are the fusion blocks. Allowed: "
            "blocks joined by colons, e.g. 2:4:8. The sweep has all, deep and shallow anyway."
        )
    return scopes(asked.variant)


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """Differences to vanilla, and (Figure 6) which block was chosen when all were allowed."""
    caption = caption_of(finished)
    return {
        "scope": differences(table, caption),
        "chosen": chosen_figure(chosen(finished.answers["all"]), caption),
    }
