"""`lmms-ca explain` on small random checkpoints: end to end, the maps' place on the picture, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import qwens
import torch
from PIL import Image
from steps import texts
from toys import SMALL, ask, make_family, photo
from typer.testing import CliRunner

from lmms_ca_plugin.checkpoints import options_of
from lmms_ca_plugin.cli import build
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, InputOptions, describe, load
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._contract import Kind
from lmms_ca_plugin.figures.explanation import Explanation, Map, explanation
from lmms_ca_plugin.layer_profile import LayerProfile
from lmms_ca_plugin.methods import method_names
from lmms_ca_plugin.methods.vicrop import ViCrop
from lmms_ca_plugin.studies.asked import given_options
from lmms_ca_plugin.studies.every_method import answer, declare
from lmms_ca_plugin.studies.explain import ExplainOptions, explain, read_picture, seen_by
from lmms_ca_plugin.studies.looking import look
from lmms_ca_plugin.tiny import TinySettings, write_checkpoint

QUESTION = "What is in the cup?"
FAMILIES = {"llava": 16, "llava_next": 16, "qwen2_vl": 24}  # tokens of the base view
LAYERS = ["contrastive.review_layer=4", "contrastive.scope=0:1:2", "contrastive.rho=0.5", "vicrop.layer=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of three families, and a picture that is wider than high."""
    folder = tmp_path_factory.mktemp("explain")
    sizes = {**SMALL, "dtype": torch.float32}
    for name in ("llava", "llava_next"):
        write_checkpoint(folder / name, TinySettings(name, **sizes))
    for part in qwens.build("qwen2_vl", **sizes):
        part.save_pretrained(folder / "qwen2_vl")
    photo("coffee", 120, 80).save(folder / "cup.png")
    return folder


def run(*args):
    return CliRunner().invoke(build(), ["explain", *map(str, args)])


@pytest.fixture(scope="module")
def found(folder):
    """What the verb wrote for each family."""
    records = {}
    for name in FAMILIES:
        given = [part for setting in LAYERS for part in ("--set", setting)]
        figure, record = folder / f"{name}.png", folder / f"{name}.json"
        where = ("--pretrained", folder / name, "--image", folder / "cup.png", "--question", QUESTION)
        done = run(*where, *given, "-o", figure, "--json", record)
        assert done.exit_code == 0, done.output
        records[name] = (done.output, json.loads(record.read_text()))
    return records


# ---- end to end ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_the_figure_is_a_page_wide_and_every_method_is_named(folder, found, name):
    output, record = found[name]
    with Image.open(folder / f"{name}.png") as figure:
        assert figure.size[0] == 2100 and np.asarray(figure.convert("L")).std() > 10
    assert next(iter(record["methods"])) == "vanilla"
    assert set(record["methods"]) == set(method_names()) - {"distance"}  # which observes, and answers as vanilla
    for method, what in record["methods"].items():
        assert method in output
        assert ("text" in what) != ("not_run" in what)
    assert record["methods"]["layermask"]["not_run"].startswith("layermask masks one block: give layer=n")
    assert record["methods"]["var"]["not_run"].startswith("tau=20 cannot be exceeded")
    assert {m for m, what in record["methods"].items() if "text" in what} == {
        "vanilla",
        "contrastive",
        "dola",
        "vicrop",
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_the_engines(folder, found, name):
    record = found[name][1]["methods"]
    family = load(describe(CheckpointOptions(str(folder / name))), InputOptions())
    asked = [ask(0, QUESTION, read_picture(folder / "cup.png"))]
    assert record["vanilla"]["text"] == texts(family, asked, "vanilla")[0]
    assert record["dola"]["text"] == texts(family, asked, "dola")[0]
    options = {"review_layer": "4", "scope": "0:1:2", "rho": "0.5"}
    assert record["contrastive"]["text"] == texts(family, asked, "contrastive", options)[0]
    assert record["vicrop"]["text"] == texts(family, asked, "vicrop", {"layer": 2})[0]
    settled = record["contrastive"]["parameters"]
    assert settled["lam"] == 1e-9 and settled["post_layer"] == 3  # nobody gave them


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_the_reads_that_contrastive_decided_by(found, name):
    record = found[name][1]
    log = record["methods"]["contrastive"]["log"]
    assert sorted(map(int, record["attention"])) == sorted({log["pre_layer"], log["post_layer"], 5})
    assert set(log["maps"]["attention"]) == {"0", "1", "2", "3"}
    base = slice(0, FAMILIES[name])  # the base view comes first
    for layer in (log["pre_layer"], log["post_layer"]):
        shown = record["attention"][str(layer)]
        theirs = log["maps"]["attention"][str(layer)]
        assert len(theirs) == record["image_tokens"] and sum(theirs) == pytest.approx(1)
        assert np.ravel(shown["base_map"]) == pytest.approx(theirs[base], rel=1e-6)
        assert shown["base_share"] == pytest.approx(sum(theirs[base]))
    assert record["base_tokens"] == FAMILIES[name]
    assert (record["image_tokens"] > record["base_tokens"]) == (name == "llava_next")


def drawn_contrast(folder, name, *settings):
    """IA as it is drawn, and as contrastive recorded it."""
    given = given_options([*LAYERS, *settings])
    made = explain(folder / "cup.png", QUESTION, ExplainOptions(CheckpointOptions(str(folder / name)), given=given))
    log = made.record["methods"]["contrastive"]["log"]
    return made.explanation.contrast, np.array(log["maps"]["score"][:16]).reshape(4, 4), log["eligible_tokens"]


@pytest.mark.parametrize(
    ("name", "setting", "unit"),
    [
        ("llava_next", "contrastive.image_tokens=all", "1: equal on all tokens"),
        ("llava_next", "contrastive.image_tokens=base", "1: equal on the base view"),
        ("llava", "contrastive.image_tokens=base", "1: equal on all tokens"),
    ],
)
def test_equal_attention_is_that_of_the_tokens_that_may_be_masked(folder, name, setting, unit):
    shown, score, eligible = drawn_contrast(folder, name, setting)
    assert (eligible > 16) == setting.endswith("all") and shown.unit == unit
    assert shown.values == pytest.approx(score * eligible)


def test_raw_mass_is_shown_as_such(folder):
    shown, score, _ = drawn_contrast(folder, "llava_next", "contrastive.renormalise=false")
    assert shown.unit == "raw mass" and shown.values == pytest.approx(score)


# ---- the picture -----------------------------------------------------------------------------------------------------
SEEN = [("llava", "pad"), ("llava", "processor"), ("llava_next", "processor")]


@pytest.mark.parametrize("size", [(240, 160), (120, 210)], ids=["wide", "tall"])
@pytest.mark.parametrize(("model_type", "aspect"), SEEN)
def test_a_planted_cell_is_drawn_where_it_is(model_type, aspect, size):
    """Which image token changes says where the model sees the planted cell; the figure must say the same."""
    family = make_family(model_type, aspect=aspect)
    cells = family.cells(size)
    row, column = cells.rows[-2], cells.columns[1]
    left, top = cells.left + column * cells.width, cells.top + row * cells.height
    corners = tuple(round(v) for v in (left, top, left + cells.width, top + cells.height))
    black, planted = Image.new("RGB", size), Image.new("RGB", size)
    planted.paste((255, 255, 255), corners)
    looks = [look(family, ask(0, "Where?", picture), (0,)) for picture in (black, planted)]
    with torch.inference_mode():
        states = [family.embed(family.encode([one.question])) for one in looks]
    changed = (states[1].states - states[0].states)[0, states[0].is_image[0]].norm(dim=-1)  # (t,)
    drawn = explanation(
        Explanation(
            *("toy", "Where?", np.asarray(planted), looks[1].view),
            seen_by(cells),
            *((Map("changed", looks[1].on_cells(changed)),), None, None, None, ()),
        )
    )
    (axes,) = [axes for axes in drawn.axes if axes.get_title(loc="left") == "changed"]
    for artist in (child for child in axes.get_children() if child.get_gid() in ("map", "view")):
        values, (x0, x1, y1, y0) = artist.get_array(), artist.get_extent()
        hot = np.argwhere(values == values.max()).mean(0) + 0.5
        y, x = y0 + hot[0] * (y1 - y0) / values.shape[0], x0 + hot[1] * (x1 - x0) / values.shape[1]
        assert corners[0] < x < corners[2] and corners[1] < y < corners[3], artist.get_gid()


def test_the_view_is_the_picture_without_the_processors_scaling():
    family = make_family("llava", aspect="processor")
    colour = (250, 20, 130)
    view = look(family, ask(0, "Which colour?", Image.new("RGB", (90, 60), colour)), (1,)).view
    assert view.shape == (56, 56, 3)
    assert np.abs(view * 255 - colour).max() < 1


def test_tiles_and_row_ends_are_left_out_and_counted():
    family = make_family("llava_next")
    looking = look(family, ask(0, "Where?", photo("cat", 130, 60)), (2, 5))
    assert looking.base_tokens == 16 and looking.tokens == len(looking.kinds) > 16
    assert {Kind.TILE, Kind.NEWLINE} <= set(looking.kinds.tolist())
    ordered = torch.arange(looking.tokens)
    assert looking.on_cells(ordered).ravel().tolist() == ordered[looking.kinds == Kind.BASE].tolist()
    assert 0 < looking.base_share(2) < 1
    assert float(looking.attention[2].sum()) == pytest.approx(1)


def test_a_picture_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").size == (20, 30)


# ---- methods ---------------------------------------------------------------------------------------------------------
def test_what_fails_later_than_at_its_options_is_listed_too():
    """ViCrop refuses a family without geometry while it runs, var a trunk without sink dims when it is loaded."""
    family = make_family("llava")
    given = {"var": {"tau": "5"}, "vicrop": {"layer": "2"}}
    declared = {name: replace(d, required=name == "vanilla") for name, d in declare(family.trunk, given).items()}
    short = {name: declared[name] for name in ("vanilla", "var", "vicrop")}
    two = ask(0, QUESTION, photo("cat", 60, 60), photo("cat", 60, 60))
    outcomes = answer(family, two, short, Generation(max_new_tokens=2))
    assert outcomes["vanilla"].answer is not None
    assert outcomes["var"].reason.startswith("var: no sink dims")
    assert "vicrop crops one picture, but the question shows 2" in outcomes["vicrop"].reason


def test_a_bundled_checkpoint_brings_its_options_along(monkeypatch):
    brought = {"contrastive": {"review_layer": 4, "scope": [1, 2]}, "vicrop": {"layer": 2}}
    monkeypatch.setattr("lmms_ca_plugin.checkpoints._brought", lambda _, name: brought.get(name, {}))
    declared = declare(make_family("llava").trunk, {"contrastive": {"scope": "0:1"}}, "mini")
    assert declared["contrastive"].options == {"review_layer": 4, "scope": "0:1"}
    assert declared["contrastive"].required and not declared["vicrop"].required
    assert declared["vicrop"].method == ViCrop(layer=2)


def test_a_profile_names_all_that_a_checkpoint_would_bring():
    assert options_of("mini", "contrastive", {"rho": 0.1}).keys() > {"scope", "review_layer", "rho"}
    assert options_of("mini", "contrastive", {"profile": "p.json"}) == {"profile": "p.json"}
    assert options_of("elsewhere/mini", "contrastive", {"rho": 0.1}) == {"rho": 0.1}


def test_a_method_whose_options_were_given_must_run():
    trunk = make_family("llava").trunk
    with pytest.raises(OptionError, match="layer: the checkpoint has no block 99"):
        declare(trunk, {"layermask": {"layer": "99"}})
    with pytest.raises(OptionError, match="Unknown option 'layers'. Did you mean 'layer'"):
        declare(trunk, {"layermask": {"layers": "1"}})
    assert declare(trunk, {})["layermask"].method is None


# ---- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--image": "nowhere.png"}, "nowhere.png does not exist. Give a picture"),
        ({"--image": "llava/config.json"}, "config.json cannot be read as a picture"),
        ({"--question": " \n"}, "The question is blank. Give it as text"),
        ({"-o": "figure.jpg"}, "a figure cannot be written as '.jpg'. Allowed endings: .pdf, .png, .svg"),
        ({"-o": "cup.png"}, "cup.png is the picture itself and would be overwritten"),
        ({"--json": "cup.png"}, "cup.png is the picture itself and would be overwritten"),
        ({"--json": "."}, "json=. is a folder. Give a file, e.g. ./cup.json"),
        ({"--layers": "2:6"}, "layers: the checkpoint has no block 6. Allowed: 0 to 5"),
        ({"--layers": "2-4"}, "layers=2-4 is not allowed. Allowed: whole numbers joined by colons"),
        ({"--max-new-tokens": "0"}, "max_new_tokens=0 is not allowed"),
        ({"--set": "rho=1"}, "--set rho=1: write METHOD.OPTION=VALUE"),
        ({"--model-args": "devise=cpu"}, "Unknown option 'devise'. Did you mean 'device'"),
        ({"--set": "contrast.rho=1"}, "Unknown method 'contrast'. Did you mean 'contrastive'"),
        ({"--set": "contrastive.rho=2"}, "rho=2.0 is not a share"),
        ({"--model-args": "pretrained=mini"}, "--model-args pretrained=mini: "),
        ({"--model-args": "dtype=float8"}, "dtype=float8 is not allowed"),
        ({"--pretrained": "./nowhere"}, "there is no such folder"),
    ],
)
def test_what_cannot_be_done_is_named(folder, monkeypatch, changed, message):
    monkeypatch.chdir(folder)
    before = (folder / "cup.png").read_bytes()
    usual = {"--pretrained": "./llava", "--image": "cup.png", "--question": QUESTION, "-o": "new.png"}
    done = run(*[part for pair in {**usual, **changed}.items() for part in pair])
    assert done.exit_code == 1 and message in str(done.exception)
    assert not (folder / "new.png").exists() and (folder / "cup.png").read_bytes() == before


def test_nothing_is_read_before_what_can_be_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("lmms_ca_plugin.studies.explain.load", None)
    with pytest.raises(OptionError, match="has no block 6"):
        explain(folder / "cup.png", "?", ExplainOptions(CheckpointOptions(str(folder / "llava")), layers=(6,)))
    with pytest.raises(InputError, match="cap.png does not exist"):
        explain(folder / "cap.png", "?", ExplainOptions(CheckpointOptions("hub/unreachable")))
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(LayerProfile("llava", 6, (0,), 2, 3, checkpoint_sha="0" * 64).to_json()))
    given = {"contrastive": {"profile": str(file)}}
    with pytest.raises(InputError, match="is of the weights 0{12}"):
        explain(folder / "cup.png", "?", ExplainOptions(CheckpointOptions(str(folder / "llava")), given=given))
