import pytest

from lmms_ca_plugin.tiny import build_tokenizer
from lmms_ca_plugin.tiny.tokenizer import BYTES, _trained


def test_the_special_tokens_lie_where_llamas_and_llavas_do():
    tokenizer = build_tokenizer()
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", BYTES[0], BYTES[-1]]) == [0, 1, 2, 3, 258]
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token) == (1, 2, "<pad>")


@pytest.mark.parametrize("text", ["What color is the suit?", "naïve Ω 猫 🐈", "two\nlines", "<unknown> zq-9", "a  b"])
def test_any_text_survives_a_round_trip(text):
    tokenizer = build_tokenizer()
    numbers = tokenizer(text).input_ids
    assert numbers[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in numbers
    assert tokenizer.decode(numbers, skip_special_tokens=True) == text


def test_a_line_break_is_a_byte_token_as_in_llama():
    assert "<0x0A>" in build_tokenizer().tokenize("two\nlines")


def test_an_image_token_inside_text_is_one_token():
    tokenizer = build_tokenizer()
    assert tokenizer("USER: <image>\nWhat").input_ids.count(tokenizer.image_token_id) == 1


def test_training_is_deterministic():
    first = _trained()
    _trained.cache_clear()
    assert _trained() == first


def test_our_own_prompts_do_not_fall_back_to_bytes():
    pieces = build_tokenizer().tokenize("USER: Answer the question using a single word or phrase. ASSISTANT:")
    assert not set(pieces) & set(BYTES)
    assert len(pieces) < 20
