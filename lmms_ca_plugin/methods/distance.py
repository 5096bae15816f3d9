"""distance: changes nothing, and logs how far every block's image attention is from that of one block.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", equation 2 and Figure 5.
Rule: with p(l) the last prompt token's attention over the image tokens at block l (mean over heads, sum 1), every
block's H(p(l), p(k)) is logged. Answers are vanilla's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lmms_ca_plugin.families._contract import Prompt, Trunk
from lmms_ca_plugin.methods._contract import Method, Plan, Read, Reads
from lmms_ca_plugin.methods._distances import DISTANCES, DistanceName, distribution


@dataclass(frozen=True)
class Distance(Method):
    """Looks at attention maps.

    Attributes:
        to_layer: The block that all are compared with; None is the last.
        distance: `hellinger`, or `jsd` (Jensen-Shannon divergence, base 2).
    """

    to_layer: int | None = None
    distance: DistanceName = "hellinger"

    def plan(self, trunk: Trunk) -> Plan:
        """Reads the attention of all blocks, edits nothing.

        Raises:
            OptionError: A block that the checkpoint lacks.
        """
        bound = replace(self, to_layer=trunk.num_blocks - 1 if self.to_layer is None else self.to_layer)
        assert bound.to_layer is not None
        trunk.check_blocks("to_layer", (bound.to_layer,))
        reads = tuple(Read(block) for block in range(trunk.num_blocks))
        return Plan(reads=reads, observe=bound._observe, settled={"to_layer": bound.to_layer})

    def _observe(self, reads: Reads, prompt: Prompt) -> tuple[dict[str, Any], ...]:
        assert self.to_layer is not None  # bound by plan()
        blocks = sorted(read.block for read in reads if read.kind == "attention")
        maps = torch.stack([reads[Read(block)] for block in blocks], 1) * prompt.is_image[:, None]  # (b, blocks, s)
        target = distribution(maps[:, blocks.index(self.to_layer), None])  # (b, 1, s)
        found = DISTANCES[self.distance](distribution(maps), target)  # (b, blocks)
        return tuple(
            {"to_layer": self.to_layer, "distances": dict(zip(blocks, row, strict=True))} for row in found.tolist()
        )


METHOD = Distance
