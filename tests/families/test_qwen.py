"""Qwen2-VL and Qwen2.5-VL: positions, cells and pixels of pictures, the hub's form of checkpoints, and refusals."""

import json
from dataclasses import replace

import naive
import numpy as np
import pytest
import qwens
import torch
from PIL import Image
from toys import ask, make_family, mixed_questions, photo

from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.load import CheckpointOptions, describe
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._contract import InputOptions, Kind, Message
from lmms_ca_plugin.methods import load_method

CELL = 2 * qwens.PATCH
# Within the bounds, below and above them (1280 x 1280 is over the processor's 1,003,520 pixels), thin, and tiny.
SIZES = [(200, 120), (64, 48), (1280, 1280), (30, 2000), (7, 1000), (5, 3), (1, 1)]


@pytest.fixture(params=qwens.CLASSES)
def qwen(request):
    return make_family(request.param)


# ---- prompts ---------------------------------------------------------------------------------------------------------
def test_the_prompt_is_the_templates_to_the_letter(qwen):
    shown = Message("user", "What is it?", (photo("cat", 60, 60),) * 2)
    picture = "<|vision_start|><image><|vision_end|>"
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    asked = f"<|im_start|>user\n{picture}{picture}What is it?<|im_end|>\n<|im_start|>assistant\n"
    assert qwen.render((shown,)) == system + asked
    assert qwen.render((Message("system", "Be brief."), shown)).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_positions_are_transformers_own(qwen):
    two = ask(8, "Which one is older?", photo("coffee", 120, 60), photo("cat", 60, 130))
    questions = [*mixed_questions(), two, ask(9, "What is two plus two?")]
    prompt, given = qwen.embed(qwen.encode(questions)), naive.arguments(qwen, questions)
    real = given["attention_mask"].bool()
    assert torch.equal(prompt.positions[real], naive.positions(qwen, given).permute(1, 2, 0)[real])
    assert (prompt.positions[~real] == 0).all() and not real.all()
    of_cells = prompt.positions[-2][prompt.is_image[-2]]  # of two pictures, the first of 3 x 6 cells
    assert (of_cells[:18, 1:] - of_cells[0, 1:]).tolist() == [[row, column] for row in range(3) for column in range(6)]
    assert of_cells[18, 0] - of_cells[0, 0] == 6 + 2, "six for the longer side, and two for the tokens between"


# ---- geometry --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_has_a_token_for_every_cell_of_its_grid(qwen, size):
    inputs = qwen.encode([ask(0, "What?", Image.new("RGB", size, "red"))])
    rows, columns = qwen.cells(size).grid
    assert inputs.pictures["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns]]
    (seen,) = qwen.look(inputs)
    assert qwen.view_side == 224, "what the public code of ViCrop takes"
    assert len(seen.states) == len(seen.kinds) == rows * columns == qwen.base_tokens(size)
    assert seen.grid == (rows, columns) and set(seen.kinds.tolist()) == {Kind.BASE}


@pytest.mark.parametrize("size", [(200, 120), (64, 48), (1280, 1280), (300, 70)])
def test_painting_a_cells_pixels_lights_up_that_cell(qwen, size):
    cells = qwen.cells(size)
    rows, columns = cells.grid
    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)]:
        left, right = (round(cells.width * edge) for edge in (column, column + 1))
        top, bottom = (round(cells.height * edge) for edge in (row, row + 1))
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[top:bottom, left:right, 0] = 255
        (view,) = qwen.base_pixels(qwen.encode([ask(0, "What?", Image.fromarray(pixels))]).pictures)
        redness = (view[0] - view[2]).double().view(rows, CELL, columns, CELL).mean((1, 3))
        assert divmod(int(redness.argmax()), columns) == (row, column)


def test_the_view_is_the_whole_picture_resized(qwen):
    picture = photo("coffee", 210, 130)
    given = [ask(0, "What?", photo("cat", 400, 400)), ask(1, "What?", picture)]  # the larger one fills the other up
    *_, view = qwen.base_pixels(qwen.encode(given).pictures)
    processor = qwen.processor.image_processor
    mean, std = (np.array(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    shown = view.numpy() * std + mean
    resized = np.asarray(picture.resize((200, 120), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
    assert np.abs(shown - resized).max() < 2.01 / 255


def test_larger_pictures_are_made_smaller_up_to_the_bound():
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32)
    plain = load_family("qwen2_vl")(model, processor)
    assert plain.inputs == InputOptions("processor", "processor", 1_003_520), "the processor's own bound is told"
    before = plain.cells((400, 300)).grid
    bounded = load_family("qwen2_vl")(model, processor, InputOptions(max_pixels=40_000))
    assert bounded.inputs.max_pixels == 40_000
    inputs = bounded.encode([ask(0, "What?", photo("coffee", 400, 300)), ask(1, "What?", photo("coffee", 60, 60))])
    assert before == (15, 20) and inputs.pictures["image_grid_thw"][:, 1:].tolist() == [[16, 22], [6, 6]]
    assert bounded.cells((400, 300)).grid == (8, 11)
    assert plain.cells((400, 300)).grid == before and load_family("qwen2_vl")(model, processor).inputs == plain.inputs
    with pytest.raises(
        OptionError, match="max_pixels=3000 is not allowed. Allowed: 3136, the processor's least, and more"
    ):
        load_family("qwen2_vl")(model, processor, InputOptions(max_pixels=3000))
    llava = make_family("llava")
    with pytest.raises(OptionError, match="max_pixels=40000 has no meaning for 'llava', whose views have one size"):
        type(llava)(llava.model, llava.processor, InputOptions(max_pixels=40_000))


# ---- checkpoints as the hub has them ---------------------------------------------------------------------------------
@pytest.fixture(params=qwens.CLASSES)
def saved(request, tmp_path):
    model, processor = qwens.build(request.param, num_blocks=4, hidden_size=32)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def opened(folder):
    options = CheckpointOptions(str(folder), device="cpu")
    method = load_method("layermask").from_options({"layer": 2})
    return Engine.load("layermask", method, options, InputOptions(), RunOptions(4))


def test_a_config_without_parts_and_a_processor_in_two_files_are_read(saved):
    """As Qwen2-VL was published: the trunk's fields beside the others, mrope as `type`, bounds as pixels by name."""
    requests = [Request(question, Generation(max_new_tokens=4)) for question in mixed_questions()]
    now = opened(saved)
    config = json.loads((saved / "config.json").read_text())
    text, processor = config.pop("text_config"), now.family.processor
    rotary = text.get("rope_parameters") or text["rope_scaling"]  # the first from transformers 5 on
    for name in ("model_type", "rope_parameters", "rope_scaling", "layer_types"):
        text.pop(name, None)
    text |= {"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": rotary["mrope_section"]}}
    text |= {"sliding_window": 32768, "use_sliding_window": False}
    vision = {**config["vision_config"], "in_chans": 3, "spatial_patch_size": qwens.PATCH}
    for name in ("model_type", "in_channels", "rope_parameters"):
        vision.pop(name, None)
    published = {**text, **config, "vision_config": vision, "torch_dtype": "float32"}
    (saved / "config.json").write_text(json.dumps(published))
    pictures = {**processor.image_processor.to_dict(), "processor_class": type(processor).__name__}
    size = pictures.pop("size")
    pictures |= {"min_pixels": size["shortest_edge"], "max_pixels": 900_000}
    (saved / "preprocessor_config.json").write_text(json.dumps(pictures))
    (saved / "processor_config.json").unlink(missing_ok=True)
    then = opened(saved)
    assert replace(then.family.trunk, text_type=now.family.trunk.text_type) == now.family.trunk
    assert (now.family.inputs.max_pixels, then.family.inputs.max_pixels) == (1_003_520, 900_000)
    assert then.answer(requests) == now.answer(requests)


def test_the_published_sizes_are_understood(saved):
    """Qwen/Qwen2-VL-7B-Instruct and Qwen/Qwen2.5-VL-7B-Instruct have the same trunk."""
    config = json.loads((saved / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "layer_types": ["full_attention"] * 28,
        "rms_norm_eps": 1e-6,
        "vocab_size": 152064,
    }
    tie = {"tie_word_embeddings": True}  # as the 2B and 3B, at the place that the release knows
    tied = {**config, **tie, "text_config": {**config["text_config"], **tie}}
    (saved / "config.json").write_text(json.dumps(tied))
    assert describe(CheckpointOptions(str(saved), device="cpu")).trunk.tied_embeddings
    (saved / "config.json").write_text(json.dumps(config))
    trunk = describe(CheckpointOptions(str(saved), device="cpu")).trunk
    assert not trunk.tied_embeddings
    assert (trunk.num_blocks, trunk.head_size, trunk.max_positions) == (28, 128, 32768)
    assert not trunk.is_paper_trunk
    with pytest.raises(OptionError, match="this checkpoint is 'qwen2.*' on a 28-block 'qwen2.*_text'"):
        load_method("contrastive")().plan(trunk)


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_what_only_llava_can_do_is_refused(qwen):
    with pytest.raises(OptionError, match="Unknown image_aspect_ratio 'pad'.*Allowed: processor"):
        type(qwen)(qwen.model, qwen.processor, InputOptions(image_aspect_ratio="pad"))
    with pytest.raises(OptionError, match="Unknown conversation 'vicuna_v1'.*Allowed: processor"):
        type(qwen)(qwen.model, qwen.processor, InputOptions("vicuna_v1"))


def test_pictures_that_the_processor_does_not_take_are_refused(qwen):
    with pytest.raises(InputError, match=r"document 3: a picture of 402 x 2 pixels is thinner than 1:200.*Crop it\."):
        qwen.encode([ask(3, "What?", Image.new("RGB", (402, 2)))])
    qwen.encode([ask(3, "What?", Image.new("RGB", (400, 2)))])


def test_a_picture_takes_no_more_room_on_the_device_than_its_own():
    qwen = make_family("qwen2_vl")
    pictures = qwen.encode([ask(0, "?", photo("cat", 60, 60)), ask(1, "?", photo("cat", 400, 400))]).pictures
    held = [int(of.prod()) for of in pictures["image_grid_thw"]]
    assert pictures["pixel_values"].shape[:2] == (2, max(held)), "on the CPU the smaller one is filled up"
    assert qwen.moved(pictures)["pixel_values"].shape[0] == sum(held)


def test_a_prompt_that_is_too_long_says_how_pictures_get_smaller():
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32, max_position_embeddings=300)
    engine = Engine(load_family("qwen2_vl")(model, processor), load_method("vanilla")(), RunOptions())
    with pytest.raises(InputError, match=r"Ask for fewer new tokens, or for smaller pictures .max_pixels=1003520 now"):
        engine.answer_batch([ask(0, "What?", photo("cat", 400, 400))], Generation(max_new_tokens=2))


def test_a_template_of_another_kind_is_taken_as_it_is():
    """Vicuna's words make no Vicuna: its conversation would leave out the tokens around a picture."""
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32)
    processor.chat_template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}"
        "{{ '<|vision_start|><image><|vision_end|>' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %}"
        " ASSISTANT:"
    )
    qwen = load_family("qwen2_vl")(model, processor)
    assert qwen.inputs.conversation == "processor"
    assert qwen.render((Message("user", "Hm?", (photo("cat", 60, 60),)),)) == (
        "USER: <|vision_start|><image><|vision_end|>Hm? ASSISTANT:"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"how it is to be asked\. Allowed: a chat_template\.jinja beside its config"),
        ("{{ messages[0]['role'] }}", r"made for pictures\. Allowed: the template that belongs to the checkpoint"),
    ],
)
def test_what_is_advised_is_allowed(template, message):
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32)
    processor.chat_template = processor.tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match=message):
        load_family("qwen2_vl")(model, processor)


@pytest.mark.parametrize("size", [{"height": 56, "width": 56}, {"min_pixels": 3136, "max_pixels": 40000}])
def test_a_processor_whose_bounds_are_not_pixels_is_refused(size):
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32)
    processor.image_processor.size = size
    with pytest.raises(CheckpointError, match=r"size is .* It must name shortest_edge, the least, and longest_edge"):
        load_family("qwen2_vl")(model, processor)


@pytest.mark.parametrize(
    ("name", "other"), [("patch_size", 14), ("merge_size", 1), ("temporal_patch_size", 1), ("do_resize", False)]
)
def test_a_processor_that_cuts_otherwise_is_refused(name, other):
    model, processor = qwens.build("qwen2_vl", num_blocks=2, hidden_size=32)
    setattr(processor.image_processor, name, other)
    with pytest.raises(CheckpointError, match=f"processor's {name} is {other}, but must be .* for this vision tower"):
        load_family("qwen2_vl")(model, processor)
