"""The engine on devices that are not the CPU: everything meets where it should. It needs no GPU: `pretended.py`."""

import pytest
import torch
from cases import small_model
from elsewhere import ALONE, QUESTIONS, VANILLA, alone, moved, together
from pretended import pretended_gpus

from lmms_ca_plugin.bench import studies, throughput
from lmms_ca_plugin.bench.models import small_family
from lmms_ca_plugin.bench.studies import StudiesOptions
from lmms_ca_plugin.bench.targets import BEST_ON_GPU
from lmms_ca_plugin.bench.throughput import ThroughputOptions
from lmms_ca_plugin.engine.agreement import Agreement
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.engine.requests import RunOptions
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.harness.record import cost, run_record
from lmms_ca_plugin.methods._contract import Plan
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="before 2.12 PyTorch makes tensors of its own where a pretended GPU is not seen"
)
# A tensor on the CPU among those of a GPU fails on one, and one that stayed with the wrong half of the blocks on two.
PLACES = [("llava", "cuda:1"), ("llava_next", "spread"), ("qwen2_vl", "spread"), ("qwen2_5_vl", "cuda:1")]


@pytest.fixture
def gpus(monkeypatch):
    with pretended_gpus(monkeypatch):
        yield


# ---- the device itself -----------------------------------------------------------------------------------------------
def test_what_cuda_refuses_is_refused(gpus):
    here, there, other = torch.ones(3), torch.ones(3, device="cuda"), torch.ones(3, device="cuda:1")
    assert (there.device, other.device) == (torch.device("cuda:0"), torch.device("cuda:1"))
    for a, b in ((here, there), (there, here), (there, other)):
        with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
            a + b
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        here[torch.tensor([0], device="cuda:0")]
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        torch.cat([here, there])


def test_what_cuda_allows_is_allowed(gpus):
    there = torch.arange(3.0).to("cuda:1")
    assert (there * torch.tensor(2.0))[torch.tensor([2])].tolist() == [4.0]
    there[torch.tensor([0])] = torch.full((1,), 7.0, device=there.device)
    view = there[1:]
    view.zero_()
    assert there.cpu().tolist() == [7.0, 0.0, 0.0] and type(there.cpu()) is torch.Tensor
    there.copy_(torch.ones(3))
    assert there.sum().item() == 3 and view.device == there.device == torch.device("cuda:1")


def test_gradients_come_back_to_where_they_began(gpus):
    leaf = torch.ones(3, device="cuda:0").requires_grad_()
    (gradient,) = torch.autograd.grad((leaf.to("cuda:1") * 2).to("cpu").sum(), leaf)
    assert gradient.device == torch.device("cuda:0") and gradient.tolist() == [2, 2, 2]


# ---- the engine ------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:The following device_map keys")  # image_newline is no module
@pytest.mark.parametrize(("model_type", "where"), PLACES)
def test_every_method_answers_as_on_the_cpu(model_type, where, gpus):
    here = small_model(model_type, num_key_value_heads=2)
    there = moved(here, where)
    assert {p.device.index for p in there.blocks.parameters()} == ({1} if where == "cuda:1" else {0, 1})
    assert together(there) == together(here)
    for method, settings in ALONE:
        assert alone(there, method, QUESTIONS[:1], settings) == alone(here, method, QUESTIONS[:1], settings), method


# ---- around it -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = TinySettings("llava_next", num_blocks=4, hidden_size=32, image_size=56)
    return str(write_checkpoint(tmp_path_factory.mktemp("devices") / "checkpoint", sizes))


def test_a_checkpoint_is_opened_on_the_device_that_is_named(folder, gpus, monkeypatch):
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # threads would not know of these GPUs
    opened = load(describe(CheckpointOptions(folder, device="cuda:1")), InputOptions())
    assert {p.device for p in opened.model.parameters()} == {torch.device("cuda:1")}
    record = run_record(opened, "vanilla", VANILLA, Plan(), RunOptions(), CheckpointOptions(folder), None)
    assert record["device"] == "GPU 1"
    assert cost(opened, 1.0) == {"seconds": 1.0, "peak_memory_gib": 2.0}
    with pytest.raises(OptionError, match="device=cuda:2: PyTorch finds 2 GPUs here"):
        describe(CheckpointOptions(folder, device="cuda:2"))


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_a_checkpoint_is_spread_over_all_devices(folder, gpus, monkeypatch):
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # threads would not know of these GPUs
    opened = load(describe(CheckpointOptions(folder, device_map="auto")), InputOptions())
    assert set(opened.model.hf_device_map.values()) == {0, 1}
    record = run_record(opened, "vanilla", VANILLA, Plan(), RunOptions(), CheckpointOptions(folder), None)
    assert record["device"] == "GPU 0 + GPU 1"
    assert cost(opened, 1.0) == {"seconds": 1.0, "peak_memory_gib": 3.0}
    here = load(describe(CheckpointOptions(folder, device="cpu")), InputOptions())
    assert alone(opened, VANILLA, QUESTIONS, {}) == alone(here, VANILLA, QUESTIONS, {})


def test_the_benches_run_on_a_gpu(gpus):
    family = moved(
        small_family(TinySettings("llava", num_blocks=4, hidden_size=32, image_size=56, eos_gain=0)), "cuda:0"
    )
    (sweep,) = studies.measure(family, StudiesOptions(("layers",), pairs=1, batch_size=1, new_tokens=2))
    assert sweep.agreement == Agreement(5, ())
    found = throughput.measure(family, ThroughputOptions((1, 2), 4, pairs=1, new_tokens=2))
    assert found.on_gpu and [speed.same for speed in found.speeds] == [4, 4]
    assert len([claim for claim in found.claims if claim.most == BEST_ON_GPU]) == 1
