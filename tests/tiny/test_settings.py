import pytest

from lmms_ca_plugin.errors import OptionError
from lmms_ca_plugin.tiny import TinySettings


def test_the_default_pinpoints_are_those_of_llava_1_6():
    assert TinySettings("llava_next").pinpoints == [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@pytest.mark.parametrize(("side", "tokens"), [(28, 4), (56, 16), (336, 576)])
def test_a_view_has_one_token_per_patch(side, tokens):
    assert TinySettings("llava", image_size=side).view_tokens == tokens


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_type": "llava_nxt"}, r"Unknown model_type of a tiny model 'llava_nxt'\. Did you mean 'llava_next'\?"),
        ({"num_blocks": 0}, r"num_blocks is 0, but must be at least 1"),
        ({"vision_blocks": 1}, r"vision_blocks is 1, but must be at least 2"),
        ({"image_size": 30}, r"image_size \(30\) must be a multiple of patch_size \(14\)"),
        ({"hidden_size": 66}, r"hidden_size \(66\) must be a multiple of num_heads \(4\)"),
        ({"num_key_value_heads": 3}, r"num_heads \(4\) must be a multiple of num_key_value_heads \(3\)"),
        ({"hidden_size": 36}, r"hidden_size / num_heads is 9, but rotary positions need it even"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given, message):
    with pytest.raises(OptionError, match=message):
        TinySettings(**{"model_type": "llava", **given})
