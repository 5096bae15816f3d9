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
    most = {str(task): rows.nlargest(1, "share").iloc[0] for task, rows in shares.groupby("task", sort=False)}
    found = [
        Claim(
            task,
            "the block chosen most often",
            "2 (over 86 %)" if benchmark_of(task) == "docvqa" else "2",
            f"{row['layer']} ({100 * row['share']:.0f} %)",
        )
        for task, row in most.items()
    ]
    return tuple(found)


TARGET = Target("scope", ("LLaVA-v1.5",), varied="scope", claims=claims)
