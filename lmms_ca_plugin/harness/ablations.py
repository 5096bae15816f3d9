"""The controls of contrastive attention as named rows.

Each is one option away from the default, so a row's name says what was changed and its difference to `default` says
what that did.

Source: the questions that the paper leaves open; `preset=wcd` are the settings of season1blue/WCD at commit da37c80.
"""

from __future__ import annotations

from typing import Any

from lmms_ca_plugin.errors import unknown

ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"mask_by_{control}": {"mask_by": control} for control in ("random", "post", "none")},
    **{f"site_{site}": {"site": site} for site in ("post_norm", "kv", "value", "logit", "knockout")},
    **{f"review_{block}": {"review_layer": block} for block in (27, 28, 30, 31)},
    "preset_wcd": {"preset": "wcd"},
}


def chosen_rows(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Finds rows by name.

    Args:
        names: Row names; none means all.

    Returns:
        Options by row name, in the order of `ROWS`.

    Raises:
        OptionError: There is no such row.
    """
    for name in names:
        if name not in ROWS:
            raise unknown("ablation", name, ROWS)
    return {name: options for name, options in ROWS.items() if not names or name in names}
