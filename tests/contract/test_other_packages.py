"""Another package adds a method in one file and a family in one file, and both run, from a checkpoint folder."""

import sys
from textwrap import dedent

import pytest
import torch
from naive import generate
from toys import make_family, mixed_questions
from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import LmmsCaError, OptionError
from lmms_ca_plugin.families import family_names
from lmms_ca_plugin.methods import load_method, method_entries

METHOD = '''
    """dim: scales the image tokens' values down at one block."""

    from dataclasses import dataclass

    import torch

    from lmms_ca_plugin.methods._contract import Decision, Edit, Method, Plan


    @dataclass(frozen=True)
    class Dim(Method):
        """Dims the picture.

        Attributes:
            block: Where.
            factor: By how much.
        """

        block: int = 0
        factor: float = 0.5

        def plan(self, trunk):
            return Plan(edits=(Edit(self.block, "value", self._decide),))

        def _decide(self, reads, prompt):
            values = torch.where(prompt.is_image, self.factor, 1.0)
            return Decision(values, tuple({"block": self.block} for _ in values))


    METHOD = Dim
'''
FAMILY = '''
    """ViP-LLaVA: LLaVA-1.5 whose features come from several vision blocks."""

    from lmms_ca_plugin.families.llava import Llava


    class VipLlava(Llava):
        """ViP-LLaVA."""

        model_type = "vipllava"


    FAMILY = VipLlava
'''
POINTS = """
    [lmms_ca.methods]
    dim = acme_dim

    [lmms_ca.families]
    vipllava = acme_vipllava
"""


def install(folder, monkeypatch, points=POINTS):
    """Puts a package where Python finds it, with the metadata an installer would write."""
    (folder / "acme_dim.py").write_text(dedent(METHOD))
    (folder / "acme_vipllava.py").write_text(dedent(FAMILY))
    metadata = folder / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(dedent(points))
    monkeypatch.syspath_prepend(folder)
    for module in ("acme_dim", "acme_vipllava"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def write_vipllava(folder):
    """Saves a small ViP-LLaVA: the trunk and vision sizes of the small LLaVA, features from two vision blocks."""
    plain = make_family("llava")
    torch.manual_seed(0)
    config = VipLlavaConfig(
        vision_config=plain.model.config.vision_config,
        text_config=plain.model.config.text_config,
        image_token_index=plain.trunk.image_token_id,
        vision_feature_layers=[-1, -2],
        image_seq_length=16,
    )
    model = VipLlavaForConditionalGeneration(config).double()
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    known = {n: w for n, w in plain.model.state_dict().items() if shapes.get(n) == w.shape}
    model.load_state_dict(known, strict=False)
    model.generation_config = plain.model.generation_config
    model.save_pretrained(folder)
    plain.processor.save_pretrained(folder)


def test_a_method_and_a_family_of_another_package_run(tmp_path, monkeypatch):
    assert "dim" not in {entry.name for entry in method_entries()}
    install(tmp_path, monkeypatch)
    assert {"dim", "vanilla"} < {entry.name for entry in method_entries()}
    assert "vipllava" in family_names()
    write_vipllava(tmp_path / "checkpoint")
    checkpoint = CheckpointOptions(str(tmp_path / "checkpoint"), device="cpu", dtype="float64")
    requests = [Request(question, Generation(max_new_tokens=6)) for question in mixed_questions()[:3]]
    found = {}
    for name, options in (("vanilla", {}), ("dim", {"factor": "1"}), ("dim", {"factor": "0.01"})):
        method = load_method(name).from_options(options)
        engine = Engine.load(name, method, checkpoint, InputOptions(), RunOptions(batch_size=3))
        found[name, *options.values()] = engine.answer(requests)
    assert type(engine.family).__module__ == "acme_vipllava"
    naive = [generate(engine.family, [r.question], max_new_tokens=6)[0] for r in requests]
    plain, off, dimmed = ([a.text for a in found[key]] for key in (("vanilla",), ("dim", "1"), ("dim", "0.01")))
    assert plain == off == [engine.family.processor.tokenizer.decode(ids).strip() for ids in naive]
    assert dimmed != plain
    assert found["dim", "1"][0].log == {"block": 0}


def test_an_option_of_the_added_method_is_checked_like_any_other(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    with pytest.raises(OptionError, match="Did you mean 'factor'"):
        load_method("dim").from_options({"facter": 1})
    with pytest.raises(OptionError, match=r"Unknown method 'dimm'.*Did you mean 'dim'"):
        load_method("dimm")


def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "[lmms_ca.methods]\nvanilla = acme_dim\n")
    with pytest.raises(
        LmmsCaError, match=r"'vanilla' of group 'lmms_ca\.methods' names acme_dim, but that name is taken"
    ):
        method_entries()
