"""Planted blocks, found by a sweep of the real engine: a few seeds; `python tests/planted.py 20` runs them all."""

import pytest
from planted import Plant, draw, make, profile
from transformers import LlavaForConditionalGeneration


@pytest.mark.parametrize("seed", [0, 3])
def test_what_is_planted_is_found(seed):
    plant = draw(seed)
    found = profile(plant)
    assert (found.layers.fusion, found.layers.review) == (plant.fusion, plant.review)
    assert found.layers.post == plant.passes - 1
    assert {test.verdict for test in found.tests} == {"confirmed", "not found"}


def test_a_planted_checkpoint_is_a_plain_llava():
    assert type(make(draw(0)).model) is LlavaForConditionalGeneration


def test_a_picture_that_is_read_but_not_reviewed_has_no_review_block():
    plant = Plant(seed=1, reads=2, passes=6, fragile=False)
    layers = profile(plant).layers
    assert (layers.fusion, layers.review) == ((0, 1, 2), None)


def test_where_nothing_is_planted_nothing_is_found():
    found = profile(draw(13, picture=False, fragile=False))
    assert (found.layers.fusion, found.layers.post, found.layers.review) == ((), None, None)
    assert found.calibration.vanilla.mean > 0.8  # it answers well, by the question
    assert any(at.zero.drop != 0 for at in found.curves)  # and masking its pictures is not without effect
