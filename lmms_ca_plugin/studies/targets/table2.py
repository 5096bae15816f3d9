"""Table 2: the method beside the training-free methods it is compared with."""

from __future__ import annotations

from lmms_ca_plugin.studies.targets import Target

TARGET = Target("methods", ("LLaVA-v1.5", "LLaVA-v1.6"), table=2)
