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

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.figures.differences import differences
from lmms_ca_plugin.harness.study import Finished, Variant
from lmms_ca_plugin.methods.contrastive import Contrastive
from lmms_ca_plugin.studies.asked import Asked
from lmms_ca_plugin.studies.captions import caption_of
from lmms_ca_plugin.studies.tidy import DEFAULT

_NEAR = 2  # blocks before the review block that are tried in its place; all behind it are
# One by one, because options of the user and of a bundled checkpoint win over a preset's. The site and the map are the
# method's own: with others that the user has named for the rest, the preset's options would not act.
_WCD = {"preset": "wcd", **Contrastive.presets["wcd"], "site": "residual", "mask_by": "contrastive"}


def variants(asked: Asked, trunk: Trunk) -> Sequence[Variant]:
    """Vanilla, the default, and every control that this trunk has blocks for."""
    default = asked.variant(DEFAULT, "contrastive")
    rows: dict[str, dict[str, Any]] = {
        **{f"mask_by_{control}": {"mask_by": control} for control in ("random", "post", "none")},
        **{f"site_{site}": {"site": site} for site in ("post_norm", "kv", "value", "logit", "knockout")},
        **{f"review_{block}": {"review_layer": block} for block in _other_reviews(default, trunk)},
    }
    rows["site_knockout"]["lam"] = None  # minus infinity takes no factor, if the user has named one for the others
    changed = (asked.variant(name, "contrastive", **options) for name, options in rows.items())
    return (asked.variant("vanilla", "vanilla"), default, *changed, *_preset(asked, trunk))


def _preset(asked: Asked, trunk: Trunk) -> tuple[Variant, ...]:
    """The preset, unless its block leaves no room below the review block; the default fits, as is known by now."""
    preset = asked.variant("preset_wcd", "contrastive", **_WCD)
    try:
        preset.made().plan(trunk)
    except OptionError:
        return ()
    return (preset,)


def _other_reviews(default: Variant, trunk: Trunk) -> list[int]:
    """Blocks near the review block that leave candidates and post block below them."""
    method = default.made()
    assert isinstance(method, Contrastive)
    plan = replace(method, mask_by="contrastive").plan(trunk)  # which reads candidates and post block; others need not
    review = plan.edits[0].block
    # The post block goes along with the review block, unless the user has named it.
    read = [r.block for r in plan.reads if method.post_layer is not None or r.block != review - 1]
    lowest = max(read, default=review - 1) + 2
    return [b for b in range(max(review - _NEAR, lowest), trunk.num_blocks) if b != review]


def figures(finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
    """Differences to vanilla, and to the default: what each change did."""
    caption = caption_of(finished)
    pairs = [name.removeprefix("default_") for name in table.columns if name.startswith("default_")]
    to_default = table.drop(columns=pairs).rename(columns={f"default_{name}": name for name in pairs})
    return {
        "controls": differences(table, caption),
        "controls_to_default": differences(to_default, caption, baseline=DEFAULT),
    }
