"""Which pixels of a picture a view's cells cover: against pictures that went through the real preparation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.families import load_family
from lmms_ca_plugin.families._cells import Cells, Seen, cells_of, centre, whole
from lmms_ca_plugin.families._contract import Family, InputOptions, Question
from lmms_ca_plugin.families._views import Views
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

SIZES = [(640, 480), (480, 640), (500, 500), (1000, 300), (90, 700), (5, 3), (1, 1)]
SETTINGS = {name: TinySettings(name, num_blocks=2, hidden_size=16, image_size=336) for name in ("llava", "llava_next")}
MODELS = {name: build_model(settings) for name, settings in SETTINGS.items()}


def family(model_type: str, aspect_ratio: str) -> Family:
    return load_family(model_type)(
        MODELS[model_type], build_processor(SETTINGS[model_type]), InputOptions(image_aspect_ratio=aspect_ratio)
    )


def ask(picture: Image.Image, text: str = "What is this?") -> Question:
    return toys.ask(0, text, picture)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("model_type", "aspect_ratio"),
    [("llava", "pad"), ("llava", "processor"), ("llava_next", "processor"), ("llava_next", "pad")],
)
def test_painting_a_cells_pixels_lights_up_that_cell(model_type, aspect_ratio, size):
    tested = family(model_type, aspect_ratio)
    cells = tested.cells(size)
    for row, column in [
        (cells.rows[0], cells.columns[0]),
        (cells.rows[-1], cells.columns[-1]),
        (cells.rows[len(cells.rows) // 2], cells.columns[len(cells.columns) // 3]),
    ]:
        # A picture as fine as the view, so that a cell covers whole pixels: red where the cell lies, else black.
        factor = max(1, round(600 / max(size)))
        fine = (size[0] * factor, size[1] * factor)
        x = (np.arange(fine[0]) + 0.5) / factor
        y = (np.arange(fine[1]) + 0.5) / factor
        in_column = (x >= cells.left + column * cells.width) & (x < cells.left + (column + 1) * cells.width)
        in_row = (y >= cells.top + row * cells.height) & (y < cells.top + (row + 1) * cells.height)
        pixels = np.zeros((fine[1], fine[0], 3), np.uint8)
        pixels[in_row[:, None] & in_column[None, :], 0] = 255
        view = tested.base_pixels(tested.encode([ask(Image.fromarray(pixels))]).pictures)[0]
        redness = (view[0] - view[2]).double().view(24, 14, 24, 14).mean((1, 3))  # (24, 24)
        assert divmod(int(redness.argmax()), 24) == (row, column)


@pytest.mark.parametrize("size", SIZES)
def test_cells_wholly_in_padding_hold_the_border_colour_alone(size):
    tested = family("llava", "pad")
    cells = tested.cells(size)
    white = Image.new("RGB", size, "white")
    view = tested.base_pixels(tested.encode([ask(white)]).pictures)[0]
    bright = view.mean(0).double().view(24, 14, 24, 14).amax((1, 3))  # (24, 24)
    # A resize smears an edge over less than a cell.
    far = [i for i in range(24) if i < cells.rows[0] - 1 or i > cells.rows[-1] + 1]
    assert not far or bright[far].max() < 0.2
    inside = bright[cells.rows[len(cells.rows) // 2], cells.columns[len(cells.columns) // 2]]
    assert inside > 1


@pytest.mark.parametrize("aspect_ratio", ["pad", "processor"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 3), (40, 1)])
def test_a_picture_as_high_as_it_has_channels_keeps_its_colour(aspect_ratio, size):
    tested = family("llava", aspect_ratio)
    view = tested.base_pixels(tested.encode([ask(Image.new("RGB", size, "red"))]).pictures)[0]
    assert view[0, 168, 168] > 1
    assert view[1:, 168, 168].max() < 0


def test_padding_gives_cells_of_the_longer_side_and_removes_empty_rows():
    cells = family("llava", "pad").cells((2400, 1200))
    assert (cells.width, cells.height, cells.left, cells.top) == (100, 100, 0, -600)
    assert cells.columns == range(24)
    assert cells.rows == range(6, 18)


def test_a_row_that_is_partly_padding_stays():
    cells = family("llava", "pad").cells((2400, 1250))
    assert (cells.top, cells.rows) == (-575, range(5, 19))


def test_a_grid_need_not_be_square():
    cells = Cells((20, 40), grid=(4, 2), width=10, height=10)
    assert (cells.rows, cells.columns) == (range(4), range(2))


def test_a_line_of_one_pixel_keeps_one_row():
    cells = family("llava", "pad").cells((4000, 1))
    assert len(cells.rows) == 1
    top = cells.top + cells.rows[0] * cells.height
    assert top <= 0 and top + cells.height == pytest.approx(1)


def test_a_centre_crop_gives_cells_of_the_shorter_side_and_leaves_the_ends_out():
    cells = family("llava", "processor").cells((640, 480))
    assert (cells.width, cells.height, cells.left, cells.top) == (20, 20, 80, 0)
    assert (cells.rows, cells.columns) == (range(24), range(24))


def test_a_crop_smaller_than_the_resize_sees_less():
    seen = centre((512, 256), shortest_edge=256, crop=(224, 224))
    assert seen == Seen(144, 16, 224, 224)


def test_llava_next_squashes():
    cells = family("llava_next", "processor").cells((480, 240))
    assert (cells.width, cells.height, cells.left, cells.top) == (20, 10, 0, 0)
    assert cells == cells_of((480, 240), whole((480, 240)), (24, 24))


def test_the_grid_is_the_checkpoints():
    settings = TinySettings("llava", num_blocks=2, hidden_size=16, image_size=56)
    small = load_family("llava")(build_model(settings), build_processor(settings))
    assert small.cells((56, 56)).grid == (4, 4)
    assert (small.view_side, small.base_tokens((56, 56))) == (56, 16)


@pytest.mark.parametrize("size", [(640, 480), (300, 900)])
def test_the_processors_own_padding_is_the_familys(size):
    own = family("llava", "processor")
    own.processor.image_processor = LlavaImageProcessor(
        do_pad=True, size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    assert own.cells(size) == family("llava", "pad").cells(size)


def test_a_processor_that_squashes_sees_the_whole_picture():
    squashing = family("llava", "processor")
    squashing.processor.image_processor = CLIPImageProcessor(size={"height": 336, "width": 336}, do_center_crop=False)
    assert squashing.cells((640, 480)) == cells_of((640, 480), whole((640, 480)), (24, 24))


def test_a_processor_of_unknown_effect_is_refused():
    unknown = family("llava", "processor")
    unknown.processor.image_processor = CLIPImageProcessor(size={"shortest_edge": 336}, do_center_crop=False)
    with pytest.raises(CheckpointError, match="do_center_crop=False"):
        unknown.cells((640, 480))


def test_a_family_without_views_is_refused_by_name():
    class Blind(Views):
        model_type = "blind"

    blind = Blind()
    inputs = family("llava", "pad").encode([ask(Image.new("RGB", (8, 8)))])
    for call in (
        lambda: blind.view_side,
        lambda: blind.base_tokens((1, 1)),
        lambda: blind.cells((1, 1)),
        lambda: blind.base_pixels({}),
        lambda: blind.look(inputs),
        lambda: blind.look_at_base(inputs),
        lambda: blind.write([], []),
    ):
        with pytest.raises(OptionError, match=r"families/blind\.py does not say"):
            call()


# ---- features and prompts --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model_type", SETTINGS)
@pytest.mark.parametrize("conversation", ["vicuna_v1", "processor"])
def test_written_prompts_are_the_processors(model_type, conversation):
    tested = load_family(model_type)(
        MODELS[model_type], build_processor(SETTINGS[model_type]), InputOptions(conversation)
    )
    questions = [ask(Image.new("RGB", (90, 60))), ask(Image.new("RGB", (60, 90)), "How many cats are in the picture?")]
    encoded = tested.encode(questions)
    lengths = [[int(row.sum())] for row in encoded.input_ids == tested.trunk.image_token_id]
    written = tested.write(questions, lengths)
    assert torch.equal(written.input_ids, encoded.input_ids)
    assert torch.equal(written.attention_mask, encoded.attention_mask)
    assert (written.num_pictures, written.pictures) == ((1, 1), {})


@pytest.mark.parametrize("model_type", SETTINGS)
def test_a_base_view_looked_at_alone_has_the_features_it_has_among_its_tiles(model_type):
    tested = family(model_type, "processor")
    picture = Image.linear_gradient("L").resize((200, 120)).convert("RGB")
    inputs = tested.encode([ask(picture)])
    with torch.inference_mode():
        (full,), (base,) = tested.look(inputs), tested.look_at_base(inputs)
    cells = 24 * 24
    torch.testing.assert_close(base.states[:cells], full.states[:cells], atol=1e-5, rtol=1e-5)
    assert torch.equal(base.kinds[:cells], full.kinds[:cells])
    assert len(base.states) == len(base.kinds) == tested.base_tokens(picture.size)
    if model_type == "llava_next":
        assert torch.equal(base.states[-1], full.states[-1])  # both end with the newline
        assert base.kinds[-1] == full.kinds[-1]


@pytest.mark.parametrize("model_type", SETTINGS)
def test_features_take_the_pictures_place(model_type):
    tested = family(model_type, "processor")
    inputs = tested.encode([ask(Image.new("RGB", (90, 60), "red")), ask(Image.new("RGB", (60, 90), "blue"))])
    with torch.inference_mode():
        embedded = tested.embed(inputs)
        merged = tested.embed(replace(inputs, pictures={}, features=tuple(tested.look(inputs))))
    assert torch.equal(embedded.states, merged.states)
    assert torch.equal(embedded.kinds, merged.kinds)


def test_nothing_to_look_at_is_no_features():
    tested = family("llava_next", "processor")
    inputs = tested.encode([toys.ask(0, "Hello?")])
    assert tested.look(inputs) == tested.look_at_base(inputs) == []


def test_a_written_prompt_without_its_features_is_refused():
    tested = family("llava", "pad")
    with pytest.raises(InputError, match="the prompt has 5 image tokens, but the vision tower gives 0 features"):
        tested.embed(tested.write([ask(Image.new("RGB", (8, 8)))], [(5,)]))
