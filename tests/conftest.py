"""Fixtures of all tests. They import what they need: the process that hands tests out reads this file and runs none."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

# Before numpy and torch are imported, and for every process the tests start: models this small lose more by waiting for
# a second thread than they gain, and two test processes share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from lmms_ca_plugin.families import family_names

if TYPE_CHECKING:
    from lmms_ca_plugin.families._contract import Family


@pytest.fixture(scope="session", autouse=True)
def norms_keep_float64():
    """Lets float64 models be float64: transformers' RMSNorm rounds to float32, on both sides of every comparison."""
    import torch
    from transformers.models.llama import modeling_llama
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    def forward(self, states):
        precise = states.to(torch.promote_types(states.dtype, torch.float32))
        normed = precise * torch.rsqrt(precise.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * normed.to(states.dtype)

    patch = pytest.MonkeyPatch()
    for module in (modeling_llama, modeling_qwen2_vl, modeling_qwen2_5_vl):
        for name in vars(module):
            if name.endswith("RMSNorm"):
                patch.setattr(getattr(module, name), "forward", forward)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def places_are_proven_once():
    """Tries a place of a shared model at its first engine alone, of a thousand. `self_check` has tests of its own."""
    from lmms_ca_plugin.engine import branched, engine
    from lmms_ca_plugin.engine.selfcheck import self_check

    proven = WeakKeyDictionary()

    def remembering(family, *plans):
        places = {(edit.block, edit.site) for plan in plans for edit in plan.edits}
        known = proven.setdefault(family.model, set())
        if not known or not places <= known or any(plan.rescore for plan in plans):
            self_check(family, *plans)
            known |= {"the model itself", *places}

    patch = pytest.MonkeyPatch()
    for module in (engine, branched):
        patch.setattr(module, "self_check", remembering)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage(norms_keep_float64, places_are_proven_once):
    """Keeps what is imported out of every later collection, which takes a quarter of a second otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=family_names())
def family(request) -> Family:
    from toys import make_family

    return make_family(request.param)


@pytest.fixture(
    params=[("llava", 4), ("llava", 2), ("llava_next", 2), ("qwen2_vl", 2), ("qwen2_5_vl", 4)],
    ids=["llava", "llava-grouped", "next-grouped", "qwen2-grouped", "qwen2.5"],
)
def any_family(request) -> Family:
    """All families, with and without grouped key-value heads."""
    from toys import make_family

    return make_family(request.param[0], num_key_value_heads=request.param[1])
