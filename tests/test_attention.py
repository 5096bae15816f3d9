"""The seam by itself: weights, masks, kernels."""

import pytest
import torch
from naive import arguments
from toys import make_family, mixed_questions
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from lmms_ca_plugin import attention
from lmms_ca_plugin.attention import attention_weights, seam, visible
from lmms_ca_plugin.errors import OptionError


def test_visible_is_causal_and_leaves_padding_out():
    attention_mask = torch.tensor([[False, True, True]])
    assert visible(attention_mask, 3)[0, 0].int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert visible(attention_mask, 2)[0, 0].int().tolist() == [[0, 1, 0], [0, 1, 1]]
    assert visible(attention_mask, 1)[0, 0].int().tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weights_of_grouped_heads_equal_those_of_repeated_keys(groups):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, h, 5, 8, generator=generator, dtype=torch.float64) for h in (4, groups))
    allowed = visible(torch.ones(2, 5, dtype=torch.bool), 5)
    mine = attention_weights(query, key, 0.3, allowed)
    repeated = key.repeat_interleave(4 // groups, 1)
    scores = (query @ repeated.transpose(2, 3) * 0.3).masked_fill(~allowed, -torch.inf)
    assert torch.allclose(mine, scores.softmax(-1), rtol=0, atol=1e-15)


def test_weights_are_at_least_float32():
    query = torch.randn(1, 2, 1, 8).bfloat16()
    weights = attention_weights(query, query, 1.0, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert weights.dtype == torch.float32


def test_the_mask_function_is_registered_with_the_attention_function():
    """Without it, transformers hands out no mask, and left padding changes the logits without a word."""
    family = make_family("llava")
    given = arguments(family, mixed_questions()[:4])
    assert not given["attention_mask"].bool().all()
    plain = family.model(**given).logits[:, -1]
    with seam(family.text_config):
        assert torch.equal(family.model(**given).logits[:, -1], plain)


def test_a_kernel_finds_its_own_name_in_the_config(monkeypatch):
    """FlashAttention looks its implementation up by the config's name."""
    seen = []

    def kernel(module, *args, **kwargs):
        seen.append(module.config._attn_implementation)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("toy_kernel", kernel)
    AttentionMaskInterface.register("toy_kernel", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    monkeypatch.setattr(attention, "KERNELS", (*attention.KERNELS, "toy_kernel"))
    family = make_family("llava")
    monkeypatch.setattr(family.text_config, "_attn_implementation", "toy_kernel")
    with seam(family.text_config):
        family.model(**arguments(family, mixed_questions()[:1]))
        assert family.text_config._attn_implementation == "lmms_ca_toy_kernel"
    assert set(seen) == {"toy_kernel"}


def test_a_kernel_of_the_hub_stands_in_for_flash_attention(monkeypatch):
    """transformers names it so in the config where FlashAttention is asked for and not installed."""
    name = "kernels-community/flash-attn2"
    AttentionInterface.register(name, sdpa_attention_forward)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    family = make_family("llava")
    monkeypatch.setattr(family.text_config, "_attn_implementation", name)
    with seam(family.text_config):
        assert family.text_config._attn_implementation == f"lmms_ca_{name}"
    monkeypatch.setattr(family.text_config, "_attn_implementation", "kernels-community/flash-unknown")
    with (
        pytest.raises(OptionError, match="'kernels-community/flash-unknown' is not supported"),
        seam(family.text_config),
    ):
        pass


def test_sdpa_does_without_cudnn_inside_and_with_it_again_outside():
    config = make_family("llava").text_config
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.raises(KeyError), seam(config):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        raise KeyError
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_eager_attention_is_refused(monkeypatch):
    family = make_family("llava")
    monkeypatch.setattr(family.text_config, "_attn_implementation", "eager")
    with (
        pytest.raises(OptionError, match="'eager' is not supported. Allowed: sdpa, flash_attention_2"),
        seam(family.text_config),
    ):
        pass
