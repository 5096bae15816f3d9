"""Table 3: the ranges of candidates for the pre-integrated block."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target

TARGET = Target("scope", ("LLaVA-v1.5",), table=3, varied="scope")
