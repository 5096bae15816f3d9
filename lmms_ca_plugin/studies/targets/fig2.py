"""Figure 2: LLaVA-1.5 with its image tokens taken away at each block."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target
from lmms_ca_plugin.studies.targets._masking import claims

TARGET = Target("layermask", ("LLaVA-v1.5",), varied="layer", claims=claims)
