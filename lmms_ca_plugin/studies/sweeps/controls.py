"""Contrastive attention one option away from its default: what the map, the site and the block are worth.

A variant's name says what was changed, and its difference to `default` what that did.
Source: the questions that the paper leaves open; `preset_wcd` are the settings of season1blue/WCD at commit da37c80.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.differences import differences
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.tidy import DEFAULT

_NEAR = 2  # blocks before the review block that are tried in its place; all behind it are
# One by one, because options of the user and of a bundled checkpoint win over a preset's. The site and the map are the
# method's own: with others that the user has named for the rest, the preset's options would not act.
_WCD = {"preset": "wcd", **Contrastive.presets["wcd"], "site": "residual", "mask_by": "contrastive"}


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:
    """Vanilla, the default, and every control; those that need blocks of their own may lack them here."""
    default = asked.variant(DEFAULT, "contrastive")
    rows: dict[str, dict[str, Any]] = {
        **{f"mask_by_{control}": {"mask_by": control} for control in ("random", "post", "none")},
        **{f"site_{site}": {"site": site} for site in ("post_norm", "kv", "value", "logit", "knockout")},
    }
    rows["site_knockout"]["lam"] = None  # minus infinity takes no factor, if the user has named one for the others
    reviews = {f"review_{block}": {"review_layer": block} for block in _other_reviews(default, trunk)}
    changed = (asked.variant(name, "contrastive", **options) for name, options in rows.items())
    elsewhere = (
        replace(asked.variant(name, "contrastive", **options), optional=True)
        for name, options in {**reviews, "preset_wcd": _WCD}.items()
    )
    return (asked.variant("vanilla", "vanilla"), default, *changed, *elsewhere)


def _other_reviews(default: Variant, trunk: Trunk) -> list[int]:
    """Blocks that are tried in the review block's place; the post block goes along, unless it is named."""
    review = default.made().plan(trunk).edits[0].block
    return [b for b in range(max(review - _NEAR, 0), trunk.num_blocks) if b != review]


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """Differences to vanilla, and to the default: what each change did."""
    caption = caption_of(finished)
    pairs = [name.removeprefix("default_") for name in table.columns if name.startswith("default_")]
    to_default = table.drop(columns=pairs).rename(columns={f"default_{name}": name for name in pairs})
    return {
        "controls": differences(table, caption),
        "controls_to_default": differences(to_default, caption, baseline=DEFAULT),
    }
