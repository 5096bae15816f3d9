"""Figure 7: what the share of masked tokens does."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim, Target


def claims(swept: Swept) -> Sequence[Claim]:
    """Accuracy is highest with a fifth of the tokens masked, and zero with all of them."""
    found = []
    for task, rows in swept.table.dropna(subset=["x"]).groupby("task", sort=False):
        highest, all_masked = rows[rows["score"] == rows["score"].max()], rows[rows["x"] == 1.0].iloc[0]
        best, ratios = highest.iloc[0], ", ".join(f"{x:.1f}" for x in highest["x"])
        gain = f"{best['delta']:+.1f} [{best['delta_ci95_low']:+.1f}, {best['delta_ci95_high']:+.1f}] to vanilla"
        found.append(Claim(str(task), "the best ratio", "0.2", f"{ratios} ({gain})"))
        found.append(Claim(str(task), "the score with all tokens masked", "0", f"{all_masked['score']:.1f}"))
    return tuple(found)


TARGET = Target("ratio", ("LLaVA-v1.5",), varied="rho", claims=claims)
