"""Figure 5: every block's Hellinger distance to the last."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target

TARGET = Target("distance", ("LLaVA-v1.5",))
