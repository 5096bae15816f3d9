"""Table 3: the ranges of candidates for the pre-integrated block."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets._silent import claims as claims

SWEEP = "scope"
MODELS = ("LLaVA-v1.5",)
TABLE: int | None = 3
VARIED: str | None = "scope"
