"""Table 1: the method beside the models that it is applied to, and beside others."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets._silent import claims as claims

SWEEP = "methods"
MODELS = ("LLaVA-v1.5", "LLaVA-v1.6")
TABLE: int | None = 1
VARIED: str | None = None
