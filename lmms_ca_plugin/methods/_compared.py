"""What the paper's masking studies compare: for the sweeps that run them, and for the bench that times them."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.methods._variant import Make, Variant

TENTHS = tuple(i / 10 for i in range(11))


def scopes(make: Make) -> Sequence[Variant]:
    """Table 3: vanilla, the checkpoint's own fusion blocks, and the three ranges."""
    ranges = (make(scope, "contrastive", scope=scope) for scope in ("all", "deep", "shallow"))
    return (make("vanilla", "vanilla"), *ranges, make("fusion", "contrastive"))


def ratios(make: Make) -> Sequence[Variant]:
    """Figure 7: vanilla, and eleven ratios."""
    return (make("vanilla", "vanilla"), *(make(f"rho_{rho:.1f}", "contrastive", rho, rho=rho) for rho in TENTHS))


def layers(make: Make, trunk: Trunk) -> Sequence[Variant]:
    """Figures 2 and 3: vanilla, and one variant per block."""
    masked = (make(f"L{n}", "layermask", float(n), layer=n) for n in range(trunk.num_blocks))
    return (make("vanilla", "vanilla"), *masked)
