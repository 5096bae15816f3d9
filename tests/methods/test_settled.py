"""What options leave to the checkpoint is settled by the plan, and recorded."""

import pytest
from trunks import PAPER

from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.options import spell


@pytest.mark.parametrize(
    ("name", "given", "settled"),
    [
        ("vanilla", {}, {}),
        ("contrastive", {}, {"post_layer": 28, "review_layer": 29, "lam": 1e-9}),
        ("contrastive", {"site": "kv", "review_layer": "20"}, {"post_layer": 19, "review_layer": 20, "lam": 0.1}),
        ("contrastive", {"lam": "0.5", "post_layer": "3"}, {"post_layer": 3, "review_layer": 29, "lam": 0.5}),
        ("contrastive", {"site": "knockout"}, {"post_layer": 28, "review_layer": 29}),  # it takes no lambda
        ("layermask", {"layer": "3"}, {}),
        ("dola", {}, {}),
        ("var", {}, {"sink_dims": (2533, 1415)}),
        ("vicrop", {}, {"layer": 14}),
        ("vicrop", {"map": "pure_grad"}, {}),  # it reads no block
        ("distance", {}, {"to_layer": 31}),
    ],
)
def test_what_was_settled_can_be_typed_and_is_the_same_run(name, given, settled):
    method = load_method(name).from_options(given)
    described = method.describe(method.plan(PAPER))
    assert described == vars(method) | settled
    typed = load_method(name).from_options({key: spell(value) for key, value in described.items() if value is not None})
    assert typed.describe(typed.plan(PAPER)) == described
