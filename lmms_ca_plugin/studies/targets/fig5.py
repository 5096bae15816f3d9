"""Figure 5: every block's Hellinger distance to the last."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim

SWEEP = "distance"
MODELS = ("LLaVA-v1.5",)
TABLE: int | None = None


def claims(swept: Swept) -> Sequence[Claim]:  # noqa: ARG001
    """The figure's numbers are not printed."""
    return ()
