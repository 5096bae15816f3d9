"""The explained picture: every panel in the picture's own pixels, every number and answer as it was found."""

import numpy as np
import pytest

from lmms_ca_plugin.figures.explanation import Explanation, Map, Mask, Rectangle, Said, explanation

PICTURE = np.zeros((40, 60, 3), np.uint8)
PADDED = Rectangle(0, -10, 60, 50)
VALUES = np.arange(16.0).reshape(4, 4)
MASKED = VALUES % 5 == 0


def found(**changes) -> Explanation:
    whole = {
        "checkpoint": "lab/toy",
        "question": "What does it cost?",
        "picture": PICTURE,
        "view": np.full((56, 56, 3), 0.5),
        "seen": PADDED,
        "layers": (Map("block 2", VALUES), Map("block 5", VALUES[::-1])),
        "contrast": Map("IA", VALUES / 2),
        "mask": Mask("masked", MASKED),
        "box": Rectangle(5, 6, 25, 26),
        "said": (Said("vanilla", "", "$5 and $6", True), Said("var", "tau=2", "no sink dims", False)),
        "notes": ("tiles are left out",),
    }
    return Explanation(**{**whole, **changes})


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def test_maps_hold_their_values_on_the_pixels_of_the_view():
    drawn = panels(explanation(found()))
    for name, values in (("block 2", VALUES), ("block 5", VALUES[::-1]), ("IA", VALUES / 2)):
        (image,) = artists(drawn[name], "map")
        assert image.get_array().tolist() == values.tolist()
        assert tuple(image.get_extent()) == PADDED.extent
        (view,) = artists(drawn[name], "view")
        assert tuple(view.get_extent()) == PADDED.extent
        assert (drawn[name].get_xlim(), drawn[name].get_ylim()) == ((0, 60), (50, -10))


def test_blocks_share_a_scale_and_the_contrast_has_its_own():
    drawn = panels(explanation(found()))
    first, second, contrast = (artists(drawn[name], "map")[0] for name in ("block 2", "block 5", "IA"))
    assert first.norm is second.norm and contrast.norm is not first.norm
    assert first.norm.vmin == 0 and 14 <= first.norm.vmax <= 15


def test_a_signed_contrast_keeps_its_sign():
    drawn = panels(explanation(found(contrast=Map("IA", VALUES - 4))))
    assert artists(drawn["IA"], "map")[0].norm.vmin == -4


def test_masked_cells_are_where_they_lie_on_the_picture():
    axes = panels(explanation(found()))["masked"]
    corners = {(patch.get_x(), patch.get_y()) for patch in artists(axes, "masked")}
    assert corners == {(c * 15.0, -10 + r * 15.0) for r, c in zip(*MASKED.nonzero(), strict=True)}
    assert {(patch.get_width(), patch.get_height()) for patch in artists(axes, "masked")} == {(15.0, 15.0)}


def test_the_picture_has_the_box_and_what_is_seen():
    axes = panels(explanation(found()))["picture"]
    (box,) = artists(axes, "box")
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (5, 6, 20, 20)
    (seen,) = artists(axes, "seen")
    assert (*seen.get_xy(), seen.get_width(), seen.get_height()) == (0, -10, 60, 60)
    (picture,) = artists(axes, "picture")
    assert tuple(picture.get_extent()) == (0, 60, 40, 0)


def test_what_was_not_found_is_not_drawn():
    bare = found(contrast=None, mask=None, box=None, seen=Rectangle(0, 0, 60, 40), notes=())
    assert list(panels(explanation(bare))) == ["picture", "block 2", "block 5"]


def test_every_answer_and_every_reason_is_written():
    figure = explanation(found())
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == [
        "question",
        "What does it cost?",
        "vanilla",
        "“$5 and $6”",
        "var",
        "not run: no sink dims   (tau=2)",
    ]
    assert "tiles are left out" in figure.get_supxlabel() and figure.get_supxlabel().startswith("lab/toy; ")


@pytest.mark.parametrize("text", ["", "a\nb\tc", "word " * 100])
def test_any_answer_fits(text):
    figure = explanation(found(said=(Said("vanilla", "", text, True),)))
    written = [t.get_text() for axes in figure.axes for t in axes.texts][3:]
    assert " ".join(part for part in written if part) == f"“{' '.join(text.split())}”"
    assert all("\n" not in part for part in written)
