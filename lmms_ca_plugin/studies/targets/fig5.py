"""Figure 5: every block's Hellinger distance to the last."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets._silent import claims as claims

SWEEP = "distance"
MODELS = ("LLaVA-v1.5",)
TABLE: int | None = None
VARIED: str | None = None
