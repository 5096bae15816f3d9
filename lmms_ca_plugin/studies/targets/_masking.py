"""What the paper's text says about its Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.results.multiplicity import ALPHA
from lmms_ca_plugin.results.profiles import ProfileRules
from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim

# Points. The layer profile's margin, but not its rule: here an interval has to lie beyond it whose two sides hold 95 %,
# and p-values are adjusted over the study, without a second half that confirms.
_LOSS = 100 * ProfileRules().margin


def claims(swept: Swept) -> Sequence[Claim]:
    """Masking costs much at 2, 4, 8, 11, 12, 13 and 29, and little at the others."""
    points = swept.table.dropna(subset=["x"])
    lost = points[(points["delta_ci95_high"] < -_LOSS) & (points["p_holm"] < ALPHA)]
    found = []
    for task in dict.fromkeys(points["task"]):
        blocks = [int(x) for x in lost.loc[lost["task"] == task, "x"]]
        says = f"blocks at which masking costs more than {_LOSS:g} points"
        found.append(Claim(str(task), says, "2, 4, 8, 11, 12, 13, 29", ", ".join(map(str, blocks)) or "none shown"))
    return tuple(found)
