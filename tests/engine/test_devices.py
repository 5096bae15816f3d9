"""The engine on devices that are not the CPU: everything meets where it should. No GPU is needed; see `pretended.py`."""

import copy

import pytest
import torch
from accelerate import dispatch_model
from cases import CASES, small_model
from pretended import GPUS, Pretended, pretended_gpus
from toys import ask, mixed_questions, photo

from lmms_ca_plugin.engine.branched import Branched
from lmms_ca_plugin.engine.engine import Engine, Request, RunOptions
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.families import family_names
from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint

METHODS = {
    f"{name} {options}": load_method(name).from_options(options)
    for name, case in CASES.items()
    for options in (*case.examples, *case.off)
}
TOGETHER = {name: method for name, method in METHODS.items() if not method.makes_inputs}
ALONE = {name: method for name, method in METHODS.items() if method.makes_inputs}
QUESTIONS = [*mixed_questions()[:3], ask(3, "What is two plus two?")]
SETTINGS = {"greedy": {}, "sampled": {"temperature": 1.5, "top_p": 0.9}, "beams": {"num_beams": 2}}


@pytest.fixture
def gpus(monkeypatch):
    with pretended_gpus(monkeypatch):
        yield


def moved(family, where):
    """The same family with its weights elsewhere."""
    model = copy.deepcopy(family.model)
    if where == "spread":
        blocks = family.trunk.num_blocks
        places = {f"model.language_model.layers.{i}": int(i >= blocks // 2) for i in range(blocks)}
        ends = {"model.vision_tower": 0, "model.multi_modal_projector": 0, "model.language_model.embed_tokens": 0}
        rest = {"model.language_model.norm": 1, "model.language_model.rotary_emb": 0, "lm_head": 1}
        newline = {"model.image_newline": 0} if hasattr(model.model, "image_newline") else {}
        model = dispatch_model(model, {**ends, **places, **rest, **newline})
    else:
        model.to(where)
    return type(family)(model, family.processor, family.conversation, family.image_aspect_ratio)


def alone(family, method, questions, settings):
    front = Engine(family, method, RunOptions())
    return [(a.text, a.log) for a in front.answer_batch(questions, Generation(max_new_tokens=3, **settings))]


def together(family):
    answers = Branched(family, TOGETHER, RunOptions()).answer_batch(QUESTIONS, Generation(max_new_tokens=3))
    return {name: [(a.text, a.log) for a in of] for name, of in answers.items()}


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
@pytest.fixture(params=family_names())
def family(request):
    return small_model(request.param, num_key_value_heads=2)


@pytest.mark.parametrize("where", ["cuda:1", "spread"])
def test_variants_together_answer_as_on_the_cpu(family, where, gpus):
    there = moved(family, where)
    assert isinstance(there.model.lm_head.weight, Pretended)
    assert together(there) == together(family)


@pytest.mark.parametrize("where", ["cuda:1", "spread"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_methods_alone_answer_as_on_the_cpu(family, where, setting, gpus):
    there = moved(family, where)
    for name, method in METHODS.items():
        expected, found = (alone(of, method, QUESTIONS[:2], SETTINGS[setting]) for of in (family, there))
        assert found == expected, name
