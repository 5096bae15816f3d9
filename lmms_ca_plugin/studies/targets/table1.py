"""Table 1: the method beside the models that it is applied to, and beside others."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target

TARGET = Target("methods", ("LLaVA-v1.5", "LLaVA-v1.6"), table=1)
