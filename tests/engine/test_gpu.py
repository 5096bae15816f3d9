"""Every method on a real GPU, where there is one; `test_devices.py` asks them on pretended ones."""

import pytest
import torch
from cases import small_model
from elsewhere import ALONE, QUESTIONS, alone, moved, together

from lmms_ca_plugin.families import family_names

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def texts(answers):
    """Answers without their logs, whose last digits are the device's."""
    return [text for text, _log in answers]


@pytest.mark.parametrize("model_type", family_names())
def test_every_method_answers_as_on_the_cpu(model_type):
    here = small_model(model_type, num_key_value_heads=2)
    there = moved(here, "cuda:0")
    mine, theirs = together(there), together(here)
    assert {name: texts(of) for name, of in mine.items()} == {name: texts(of) for name, of in theirs.items()}
    for method, settings in ALONE:
        mine, theirs = (alone(family, method, QUESTIONS[:1], settings) for family in (there, here))
        assert texts(mine) == texts(theirs), method
