"""Which runs are the paper's experiment, and may stand beside its numbers."""

import pytest
from trunks import PAPER

from lmms_ca_plugin.methods import load_method
from lmms_ca_plugin.methods.contrastive import DEFAULT_LAMBDA, PAPER_REVIEW, Contrastive
from lmms_ca_plugin.methods.vicrop import PAPER_LAYER
from lmms_ca_plugin.options import spell
from lmms_ca_plugin.results.published import LOGGED, SETTINGS, not_the_papers, printed_model, published_value

LLAVA, NEXT = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf"
# What the methods' None stands for there; `profile` and `layer` of layermask have no paper's value.
RESOLVED = {
    "contrastive": {"post_layer": PAPER_REVIEW - 1, "review_layer": PAPER_REVIEW, "lam": DEFAULT_LAMBDA["residual"]},
    "vicrop": {"layer": PAPER_LAYER},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_papers_settings_are_the_methods_defaults(name):
    defaults = vars(load_method(name)()) | RESOLVED.get(name, {})
    assert SETTINGS[name] == {o: value for o, value in defaults.items() if value is not None and o not in LOGGED}


def test_what_none_stands_for_is_what_the_method_does():
    bare, spelled = Contrastive(), Contrastive.from_options(SETTINGS["contrastive"])
    assert (spelled.plan(PAPER).reads, spelled.strength) == (bare.plan(PAPER).reads, bare.strength)
    assert spelled.plan(PAPER).edits[0].block == bare.plan(PAPER).edits[0].block


@pytest.mark.parametrize("name", ["contrastive", "dola", "vicrop"])
def test_a_run_that_spells_every_option_out_is_the_papers(name):
    args = ",".join(f"{option}={spell(value)}" for option, value in SETTINGS[name].items())
    assert published_value(LLAVA, name, args, "ca_gqa") == published_value(LLAVA, name, "", "ca_gqa") != (None, "")
    assert published_value(LLAVA, name, "log_maps=true,save_crops=crops,lam=None", "ca_gqa")[0] is not None


OTHERS = {
    "contrastive": (
        *("lam=0.5", "select=threshold", "renormalise=false", "image_tokens=base", "profile=OTHER.json", "scope=2:4"),
        *("scope=deep,lam=0.5", "preset=wcd", "gen_kwargs=temperature=0.7,top_p=0.9"),
    ),
    "dola": ("layers=high", "norm=true", "relative_top=0.9", "divergence=jsd", "repetition_penalty=1.2"),
    "vicrop": ("map=pure_grad", "align=whole", "layer=15", "high_res=true"),
    "vanilla": ("conversation=processor", "image_aspect_ratio=processor"),
    "llava_hf": ("chat_template=other",),
}


@pytest.mark.parametrize(("name", "args"), [(name, args) for name, of in OTHERS.items() for args in of])
def test_one_other_option_makes_another_experiment(name, args):
    assert published_value(LLAVA, name, args, "ca_gqa") == (None, "")


def test_the_option_that_the_paper_varies_may_have_any_value():
    assert not_the_papers(LLAVA, "contrastive", "rho=0.7,scope=deep", own="rho") == ("scope=deep",)
    assert not_the_papers(LLAVA, "layermask", "layer=3,mode=zero", own="layer") == ()
    assert not_the_papers(LLAVA, "layermask", "layer=3,mode=knockout", own="layer") == ("mode=knockout",)


@pytest.mark.parametrize(("model", "pictures"), [(LLAVA, "pad"), (NEXT, "processor")])
def test_prompts_and_pictures_as_the_family_prepares_them_are_the_papers(model, pictures):
    args = f"conversation=vicuna_v1,image_aspect_ratio={pictures}"
    assert not_the_papers(model, "vanilla", args) == ()


@pytest.mark.parametrize("table", [1, 2, 3])
def test_a_value_is_of_the_table_that_was_asked_for(table):
    printed = {published_value(LLAVA, "contrastive", "", task, table)[1] for task in ("ca_gqa", "ca_textvqa")}
    assert printed == {f"Song et al., Table {table}"}


def test_a_checkpoint_is_known_by_its_folder_however_that_is_written():
    assert printed_model("models/LLaVA-1.5-7B-hf/") == "LLaVA-v1.5"
