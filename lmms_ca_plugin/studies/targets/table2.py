"""Table 2: the method beside the training-free methods it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim

SWEEP = "methods"
MODELS = ("LLaVA-v1.5", "LLaVA-v1.6")
TABLE: int | None = 2


def claims(swept: Swept) -> Sequence[Claim]:  # noqa: ARG001
    """The table speaks for itself."""
    return ()
