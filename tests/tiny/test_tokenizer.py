import pytest

from lmms_ca_plugin.families._conversations import VICUNA_V1_SYSTEM
from lmms_ca_plugin.tiny import build_tokenizer
from lmms_ca_plugin.tiny.tokenizer import BYTES, _trained
from lmms_ca_plugin.tiny.world.corpus import SENTENCES
from lmms_ca_plugin.tiny.world.prompts import user_text
from lmms_ca_plugin.tiny.world.vocabulary import LEXICON, SIGN_WORDS


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


@pytest.mark.parametrize("words", ["corpus", "world"])
def test_training_is_deterministic(words):
    first = _trained(words)
    _trained.cache_clear()
    assert _trained(words) == first


def test_every_word_of_the_small_world_is_one_token():
    tokenizer = build_tokenizer("world")
    texts = [f" {word}" for word in LEXICON if not word.isupper()] + [f" {word.lower()}" for word in SIGN_WORDS]
    assert [text for text in texts if len(tokenizer(text, add_special_tokens=False).input_ids) != 1] == []
    prompt = f"{VICUNA_V1_SYSTEM} USER: <image>\nWhat is above the star?{user_text('okvqa', '')} ASSISTANT:"
    pieces = tokenizer.tokenize(prompt)
    assert len(pieces) == 14 and pieces[-3:] == [*SENTENCES[2:0:-1], " ASSISTANT:"]
    assert tokenizer.tokenize(" 407") == ["▁", "4", "0", "7"]


def test_our_own_prompts_do_not_fall_back_to_bytes():
    pieces = build_tokenizer().tokenize("USER: Answer the question using a single word or phrase. ASSISTANT:")
    assert not set(pieces) & set(BYTES)
    assert len(pieces) < 20
