"""For tables and figures whose numbers all stand in them, or are not printed at all."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.studies.sweep import Swept
from lmms_ca_plugin.studies.targets import Claim


def claims(swept: Swept) -> Sequence[Claim]:  # noqa: ARG001
    """Nothing beyond the table or figure itself."""
    return ()
