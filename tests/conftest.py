"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os

# Before numpy and torch are imported, and for every process the tests start: models this small lose more by waiting for
# a second thread than they gain, and two test processes share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch
from toys import FAMILIES, make_family
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lmms_ca_plugin.families._contract import Family


@pytest.fixture(scope="session", autouse=True)
def norms_keep_float64():
    """Lets float64 models be float64: transformers' RMSNorm rounds to float32, on both sides of every comparison."""

    def forward(self, states):
        precise = states.to(torch.promote_types(states.dtype, torch.float32))
        normed = precise * torch.rsqrt(precise.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * normed.to(states.dtype)

    patch = pytest.MonkeyPatch()
    patch.setattr(LlamaRMSNorm, "forward", forward)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage():
    """Keeps what is imported out of every later collection, which takes a quarter of a second otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return make_family(request.param)


@pytest.fixture(params=[("llava", 4), ("llava", 2), ("llava_next", 2)], ids=["llava", "llava-grouped", "next-grouped"])
def any_family(request) -> Family:
    """Both families, with and without grouped key-value heads."""
    return make_family(request.param[0], num_key_value_heads=request.param[1])
