"""What the contract suite has to know of each method: options that do something on the small models, and the off ones.

A new file in `methods/` without a case here fails the suite; with one, every invariant is tested on every family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toys import make_family

from lmms_ca_plugin.families._contract import Family


@dataclass(frozen=True)
class Case:
    """How a method is tried.

    Attributes:
        examples: Options under which answers change.
        off: Options under which nothing may change.
        needs_a_picture: Whether nothing may change for a prompt without one.
        one_picture: Whether questions with several pictures are refused.
    """

    examples: tuple[dict[str, Any], ...]
    off: tuple[dict[str, Any], ...]
    needs_a_picture: bool = True
    one_picture: bool = False


LAYERS = {"scope": "0:1:2", "review_layer": 3, "rho": 0.5}
SINKS = {"tau": 1.5, "sink_dims": "3:5", "min_attention": 0.05, "max_sink_share": 0.9}

CASES = {
    "vanilla": Case(examples=(), off=({},)),
    "contrastive": Case(
        examples=(
            LAYERS,
            {**LAYERS, "site": "post_norm"},
            {**LAYERS, "site": "kv"},
            {**LAYERS, "site": "logit"},
            {**LAYERS, "mask_by": "random"},
            {**LAYERS, "preset": "wcd", "scope": "2", "review_layer": 4},
        ),
        off=(
            {**LAYERS, "rho": 0},
            {**LAYERS, "rho": 0, "site": "knockout"},
            {**LAYERS, "lam": 1},
            {**LAYERS, "lam": 1, "site": "logit"},
            {**LAYERS, "mask_by": "none"},
        ),
    ),
    "layermask": Case(
        examples=({"layer": 2}, {"layer": 2, "mode": "knockout"}, {"layer": 3, "mode": "knockout_from"}),
        off=(),
    ),
    "dola": Case(
        examples=({}, {"layers": "high", "norm": True}, {"layers": "none", "repetition_penalty": 3.0}),
        off=({"layers": "none"},),
        needs_a_picture=False,
    ),
    "var": Case(examples=(SINKS, {**SINKS, "keep": 0}), off=({**SINKS, "keep": 1},)),
    "distance": Case(examples=(), off=({}, {"to_layer": 2, "distance": "jsd"})),
    "vicrop": Case(
        examples=({"layer": 2}, {"layer": 2, "map": "grad_att"}, {"map": "pure_grad"}), off=(), one_picture=True
    ),
}


def small_model(model_type: str, **sizes: Any) -> Family:
    """A small model of a family; a family that the tiny models do not cover needs its builder here."""
    return make_family(model_type, **sizes)
