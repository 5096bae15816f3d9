"""What the bench has to know of each method by name: its options, its targets, and how its log shows that it worked.

A method without a row is measured all the same, with its own defaults and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmms_ca_plugin.bench.floor import Floor, two_picture_floor
from lmms_ca_plugin.families._contract import Family, Question

# `lmms-ca bench throughput`: times relative to the harness's own `llava_hf`, or to `generate` where it is missing.
NO_SLOWER = 1.0  # vanilla at batch 1
BEST_ON_GPU = 1 / 6  # vanilla at its best batch size: six times the throughput
MATCHES = (0.95, 1.05)  # `generate` may stand for `llava_hf`
# `lmms-ca bench studies`
OVER_FLOOR = 1.15  # a ratio of times, over that of the operations it cannot do without

Log = Mapping[str, Any]
CountFloor = Callable[[Family, Sequence[Question], Sequence[Log], int], Floor]  # the last is the new tokens


@dataclass(frozen=True)
class Case:
    """How a method is measured.

    Attributes:
        options: Beside its defaults.
        note: Why these.
        time: The largest wall time allowed, relative to vanilla's.
        memory: The largest peak memory allowed, relative to vanilla's.
        did: Says from one sample's log what the method did; empty if it did nothing, which ends the bench.
        floor: Counts the operations below which the method cannot go.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    time: float | None = None
    memory: float | None = None
    did: Callable[[Log], str] | None = None
    floor: CountFloor | None = None


def _contrastive(log: Log) -> str:
    masked = log["masked_tokens"]
    return f"masked {masked} of {log['eligible_tokens']} image tokens at block {log['review_layer']}" if masked else ""


def _layermask(log: Log) -> str:
    masked = log["masked_tokens"]
    return f"zeroed {masked} image tokens at block {log['layer']}" if masked else ""


def _dola(log: Log) -> str:
    return f"contrasted with blocks {', '.join(map(str, log['early_layers']))}" if log["early_layers"] else ""


def _var(log: Log) -> str:
    counts = log["visual_sinks"]  # by block
    some = sum(count > 0 for count in counts.values())
    return f"visual sinks in {some} of {len(counts)} edited blocks, weights recomputed in all" if some else ""


def _vicrop(log: Log) -> str:
    return f"map at block {log['map_layer']}, box {log['box']}" if log["box"] else ""


CASES: Mapping[str, Case] = {
    "vanilla": Case(note="against itself: what the measurement can tell apart"),
    "contrastive": Case(time=1.03, memory=1.02, did=_contrastive),
    "layermask": Case({"layer": 16}, "every block costs the same", time=1.03, memory=1.02, did=_layermask),
    "dola": Case(time=1.10, did=_dola),
    "var": Case(
        {"tau": 1.0, "sink_dims": "0:1", "max_sink_share": 0.9},
        "random weights have no sinks at tau=20; here they have, in any two dims. The edit's cost depends on shapes "
        "alone: it recomputes and changes weights in every block, however many sinks there are",
        time=1.15,
        did=_var,
    ),
    "vicrop": Case(time=2.9, did=_vicrop, floor=two_picture_floor),
}
