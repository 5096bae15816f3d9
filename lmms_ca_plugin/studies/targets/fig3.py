"""Figure 3: LLaVA-1.6 with its image tokens taken away at each block."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target
from lmms_ca_plugin.studies.targets._masking import claims

TARGET = Target("layermask", ("LLaVA-v1.6",), varied="layer", claims=claims)
