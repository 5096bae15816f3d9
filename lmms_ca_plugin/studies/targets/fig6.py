"""Figure 6: which block is chosen as the pre-integrated one when all are allowed."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.results.published import benchmark_of
from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim, Target
from lmms_ca_plugin.studies.tidy import chosen


def claims(swept: Swept) -> Sequence[Claim]:
    """Block 2 is chosen most often on every set, on DocVQA by more than 86 % of the questions."""
    shares = chosen(swept.finished.answers["all"])
    found = []
    for task, rows in shares.groupby("task", sort=False):
        most = rows[rows["share"] == rows["share"].max()]
        share = f"{100 * most['share'].iloc[0]:.0f} %{' each' if len(most) > 1 else ''}"
        ours = f"{', '.join(map(str, most['layer']))} ({share})"
        says = "2 (over 86 %)" if benchmark_of(str(task)) == "docvqa" else "2"
        found.append(Claim(str(task), "the block chosen most often", says, ours))
    return tuple(found)


TARGET = Target("scope", ("LLaVA-v1.5",), varied="scope", claims=claims)
