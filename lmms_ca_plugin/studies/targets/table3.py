"""Table 3: the ranges of candidates for the pre-integrated block."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim

SWEEP = "scope"
MODELS = ("LLaVA-v1.5",)
TABLE: int | None = 3


def claims(swept: Swept) -> Sequence[Claim]:  # noqa: ARG001
    """The table speaks for itself."""
    return ()
