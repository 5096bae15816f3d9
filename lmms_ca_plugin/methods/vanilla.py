"""vanilla: the same runner with no method, the baseline that every difference is paired with."""

from __future__ import annotations

from dataclasses import dataclass

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.methods._contract import Method, Plan


@dataclass(frozen=True)
class Vanilla(Method):
    """The model as it is."""

    def plan(self, trunk: Trunk) -> Plan:  # noqa: ARG002
        """Reads nothing and edits nothing."""
        return Plan()


METHOD = Vanilla
