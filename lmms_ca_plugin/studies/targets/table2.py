"""Table 2: the method beside the training-free methods it is compared with."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets._silent import claims as claims

SWEEP = "methods"
MODELS = ("LLaVA-v1.5", "LLaVA-v1.6")
TABLE: int | None = 2
VARIED: str | None = None
