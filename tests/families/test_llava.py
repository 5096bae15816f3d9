"""Prompts, pictures and token kinds of both families, and what they refuse."""

import copy
from dataclasses import replace
from functools import cache
from typing import get_args

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from toys import ask, make_family, mixed_questions, photo
from transformers import LlavaConfig, MistralConfig

from lmms_ca_plugin.errors import CheckpointError, InputError, OptionError
from lmms_ca_plugin.families import family_names, load_family
from lmms_ca_plugin.families._contract import InputOptions, Kind, Message, Question, Trunk
from lmms_ca_plugin.families._conversations import RENDERERS, Conversation
from lmms_ca_plugin.families.llava import Llava
from lmms_ca_plugin.families.llava_next import LlavaNext
from lmms_ca_plugin.tiny import TinySettings, build_model, build_processor

# OpenAI CLIP's, which LLaVA's processors carry.
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


@cache
def real_geometry(model_type, aspect=None):
    """336 pixels, patches of 14: 576 tokens a view, as the real checkpoints."""
    sizes = {"image_size": 336, "patch_size": 14, "dtype": torch.float32, "num_blocks": 2}
    return make_family(model_type, "vicuna_v1", aspect, **sizes)


def whole_photo(name):
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def normalised(picture):
    """(3, height, width): what CLIP's tower takes of a picture of its size."""
    return ((np.asarray(picture).astype(np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)


def same_pixels(mine, reference):
    """Equal to what Pillow resizes to, up to the two grey levels that transformers' torchvision resize may differ."""
    levels = np.abs(mine - reference) * STD[:, None, None] * 255
    assert levels.max() < 2.01 and levels.mean() < 0.02


# ---- the original LLaVA's preprocessing -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea", "astronaut"])
def test_a_photograph_is_padded_and_resized_as_llava_was_trained(name):
    picture = whole_photo(name)
    width, height = picture.size
    side = max(width, height)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = [122, 116, 104]  # 255 times the mean, rounded down
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.asarray(picture)
    reference = normalised(Image.fromarray(square).resize((336, 336), Image.Resampling.BICUBIC))
    mine = real_geometry("llava").encode([ask(0, "What?", picture)]).pictures["pixel_values"][0].numpy()
    same_pixels(mine, reference)


def test_the_processors_own_way_crops_the_centre():
    picture = whole_photo("coffee")  # 600 x 400
    resized = picture.resize((504, 336), Image.Resampling.BICUBIC)
    reference = normalised(resized.crop((84, 0, 420, 336)))
    family = real_geometry("llava", "processor")
    same_pixels(family.encode([ask(0, "What?", picture)]).pictures["pixel_values"][0].numpy(), reference)


def test_llava_next_squashes_its_base_view():
    picture = whole_photo("coffee")
    reference = normalised(picture.resize((336, 336), Image.Resampling.BICUBIC))
    tiles = real_geometry("llava_next").encode([ask(0, "What?", picture)]).pictures["pixel_values"][0].numpy()
    same_pixels(tiles[0], reference)


def test_the_prompt_is_vicunas_to_the_letter():
    family = make_family("llava")
    conversation = (Message("user", "What is it?\nAnswer shortly.", (photo("cat", 9, 9),)),)
    assert family.render(conversation) == f"{VICUNA} USER: <image>\nWhat is it?\nAnswer shortly. ASSISTANT:"
    two = (Message("user", "Both?", (photo("cat", 9, 9),) * 2), Message("assistant", "Yes"), Message("user", "Sure?"))
    assert family.render(two) == f"{VICUNA} USER: <image>\n<image>\nBoth? ASSISTANT: Yes</s>USER: Sure? ASSISTANT:"
    assert family.render((Message("system", "Be brief."), *conversation)).startswith("Be brief. USER: <image>\nWhat")


def test_the_processors_conversation_is_its_template():
    conversation = (Message("user", "What is it?", (photo("cat", 9, 9),)),)
    own = make_family("llava", "processor").render(conversation)
    assert own.strip() == "USER: <image>\nWhat is it? ASSISTANT:"


INSTRUCT = (
    "{% for m in messages %}[INST] {% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
    "{% endfor %} [/INST]{% endfor %}"
)


def test_defaults_follow_the_checkpoint():
    sizes = {"num_blocks": 2, "hidden_size": 32, "image_size": 56}
    families = {}
    for model_type in ("llava", "llava_next"):
        settings = TinySettings(model_type, **sizes)
        families[model_type] = load_family(model_type)(build_model(settings), build_processor(settings))
    assert families["llava"].inputs == InputOptions("vicuna_v1", "pad")
    assert families["llava_next"].inputs == InputOptions("vicuna_v1", "processor")
    other = copy.deepcopy(families["llava_next"].processor)
    other.chat_template = INSTRUCT
    mistral = load_family("llava_next")(families["llava_next"].model, other)
    assert mistral.inputs.conversation == "processor"
    assert mistral.render((Message("user", "Hm?"),)) == "[INST] Hm? [/INST]"
    relative = load_family("llava")(families["llava"].model, other)
    assert relative.inputs == InputOptions("processor", "processor")


def test_the_prompt_of_the_34b_is_its_own_to_the_letter(monkeypatch):
    """As haotian-liu/LLaVA's `chatml_direct` writes it; the checkpoint's template leaves the system turn out."""
    model, processor = spoiled(lambda p: setattr(p, "chat_template", CHATML), "llava_next")
    assert LlavaNext(model, processor).inputs.conversation == "processor", "only Yi was trained on that system turn"
    monkeypatch.setattr(Trunk, "is_yi", True)
    family = LlavaNext(model, processor)
    system, asked = "<|im_start|>system\nAnswer the questions.<|im_end|>", "<|im_start|>user\n<image>\nHm?<|im_end|>"
    shown = Message("user", "Hm?", (photo("cat", 9, 9),))
    assert family.inputs == InputOptions("chatml_direct", "processor")
    assert family.render((shown,)) == f"{system}{asked}<|im_start|>assistant\n"
    brief = family.render((Message("system", "Be brief."), shown, Message("assistant", "Yes"), Message("user", "No?")))
    answered = "<|im_start|>assistant\nYes<|im_end|><|im_start|>user\nNo?<|im_end|>"
    assert brief == f"<|im_start|>system\nBe brief.<|im_end|>{asked}{answered}<|im_start|>assistant\n"


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{{ '<image>\n' if c['type'] == 'image' else c['text'] }}{% endfor %}<|im_end|>{% endfor %}<|im_start|>assistant\n"
)


@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
def test_a_processor_of_an_older_release_counts_as_the_tower_does(model_type):
    """Until late 2024 the published processors had none of these three fields."""

    def as_then(processor):
        processor.patch_size = processor.vision_feature_select_strategy = None
        processor.num_additional_image_tokens = 0

    whole, old = (load_family(model_type)(*spoiled(change, model_type)) for change in (lambda _: None, as_then))
    one, other = (family.encode(mixed_questions()) for family in (whole, old))
    assert torch.equal(one.input_ids, other.input_ids)
    old.embed(other)


def test_a_checkpoint_without_a_template_is_asked_as_its_trunk_was_trained(monkeypatch):
    def without(processor):
        processor.chat_template = processor.tokenizer.chat_template = None

    with pytest.raises(CheckpointError, match="no chat template.*Allowed: conversation=vicuna_v1, conversation=chatml"):
        Llava(*spoiled(without))
    assert Llava(*spoiled(without), InputOptions("vicuna_v1")).inputs.image_aspect_ratio == "pad"
    monkeypatch.setattr(Trunk, "is_llama_2", True)
    assert Llava(*spoiled(without)).inputs.conversation == "vicuna_v1"


def test_of_several_templates_the_default_one_is_taken():
    def named(processor):
        processor.chat_template = {"default": INSTRUCT, "tool_use": "{{ raise_exception('not this one') }}"}

    assert Llava(*spoiled(named)).render((Message("user", "Hm?"),)) == "[INST] Hm? [/INST]"


def test_every_conversation_that_may_be_typed_is_rendered():
    assert set(RENDERERS) == set(get_args(Conversation))


def test_a_tokenizers_template_serves_where_the_processor_has_none():
    def moved(processor):
        processor.tokenizer.chat_template, processor.chat_template = INSTRUCT, None

    assert Llava(*spoiled(moved)).render((Message("user", "Hm?"),)) == "[INST] Hm? [/INST]"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
            "has 0 placeholders '<image>'.*vicuna",
        ),
        (
            "{% for m in messages %}{{ '[INST] ' + m['content'] }}{% endfor %}",
            "template cannot render the conversation",
        ),
        ("{{ raise_exception('no users here') }}", "template cannot render the conversation: no users here"),
    ],
)
def test_templates_that_are_not_made_for_pictures_are_refused(template, message):
    with pytest.raises(CheckpointError, match=message):
        Llava(*spoiled(lambda processor: setattr(processor, "chat_template", template)))


def test_a_template_is_not_looked_at_where_the_conversation_is_given():
    broken = spoiled(lambda processor: setattr(processor, "chat_template", "{{ raise_exception('no users here') }}"))
    family = Llava(*broken, InputOptions("vicuna_v1"))
    assert family.inputs == InputOptions("vicuna_v1", "pad")
    assert family.render((Message("user", "Hm?"),)) == f"{VICUNA} USER: Hm? ASSISTANT:"


def test_a_template_that_writes_the_first_token_gets_no_second_one():
    family = Llava(*spoiled(lambda processor: setattr(processor, "chat_template", "{{ bos_token }}" + INSTRUCT)))
    questions = [ask(0, "Hm?", photo("cat", 60, 60)), ask(1, "What is it now?")]
    first = family.processor.tokenizer.bos_token_id
    written = family.write(questions, [(16,), ()])
    for inputs in (family.encode(questions), written):
        assert (inputs.input_ids == first).sum(-1).tolist() == [1, 1]
    assert torch.equal(family.encode(questions).input_ids, written.input_ids)


def test_a_text_that_begins_with_the_first_token_leaves_others_theirs(family):
    """Whatever a question says, the others in its batch are asked as alone."""
    first = family.processor.tokenizer.bos_token
    odd = replace(ask(0, "?"), conversation=lambda: (Message("system", f"{first} Be brief."), Message("user", "Why?")))
    plain = ask(1, "Why?")
    for questions in ([odd, plain], [plain, odd]):
        inputs = family.encode(questions)
        for row, question in enumerate(questions):
            alone = family.encode([question]).input_ids[0]
            assert torch.equal(inputs.input_ids[row][inputs.attention_mask[row]], alone)


# ---- tokens ---------------------------------------------------------------------------------------------------------
def test_image_tokens_are_marked_row_by_row(family):
    inputs = family.encode(mixed_questions())
    prompt = family.embed(inputs)
    placeholder = inputs.input_ids == family.trunk.image_token_id
    assert torch.equal(prompt.is_image, placeholder) and prompt.is_image.any(-1).all()
    assert not (prompt.is_image & ~prompt.attention_mask).any()
    assert not inputs.attention_mask.all() and inputs.attention_mask[:, -1].all(), (
        "the batch is not left-padded, so it proves little"
    )


@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
def test_positions_count_the_real_tokens(model_type):
    family = make_family(model_type)
    prompt = family.embed(family.encode(mixed_questions()))
    for positions, real in zip(prompt.positions, prompt.attention_mask, strict=True):
        assert positions[real].tolist() == list(range(int(real.sum())))


@pytest.mark.parametrize(
    ("width", "height", "rows", "columns"),
    # The best of (rows x columns) 1x2, 2x1, 2x2, 3x1, 1x3 tiles of 24 x 24; what is only padding is cut off.
    [(600, 400, 32, 48), (672, 336, 24, 48), (336, 1008, 72, 24), (500, 500, 48, 48), (300, 200, 24, 36)],
)
def test_llava_next_kinds_follow_its_packing(width, height, rows, columns):
    family = real_geometry("llava_next")
    prompt = family.embed(family.encode([ask(0, "What?", photo("coffee", width, height))]))
    kinds = prompt.kinds[0][prompt.is_image[0]].tolist()
    assert kinds[:576] == [Kind.BASE] * 576
    assert kinds[576:] == ([Kind.TILE] * columns + [Kind.NEWLINE]) * rows


def test_llava_has_base_tokens_only():
    prompt = make_family("llava").embed(make_family("llava").encode(mixed_questions()[:2]))
    assert set(prompt.kinds[prompt.is_image].tolist()) == {Kind.BASE}


def assert_features_for_every_token(family, size):
    prompt = family.embed(family.encode([ask(0, "What?", Image.new("RGB", size, "red"))]))
    assert prompt.is_image.any() and prompt.states.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (3, 500)])
def test_strange_sizes_have_features_for_every_token(family, size):
    assert_features_for_every_token(family, size)


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000)])
@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
def test_pictures_that_are_padded_or_tiled_may_be_any_thinner(model_type, size):
    assert_features_for_every_token(make_family(model_type), size)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
def test_every_picture_mode_is_taken(mode):
    picture = photo("cat", 40, 30)
    made = (
        Image.new(mode, (40, 30))
        if mode == "I;16"
        else picture.convert("L").convert(mode)
        if mode == "LA"
        else picture.convert(mode)
    )
    assert make_family("llava").encode([ask(0, "What?", made)]).pictures["pixel_values"].shape[1] == 3


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_an_unsupported_type_is_named():
    with pytest.raises(
        CheckpointError, match="'llava_nex' are not supported. Did you mean 'llava_next'.*llava, llava_next"
    ):
        load_family("llava_nex")
    assert set(family_names()) >= {"llava", "llava_next"}


def test_trunks_that_the_engine_would_compute_wrongly_are_refused():
    with pytest.raises(CheckpointError, match=r"'gemma2' inside 'llava'.*Allowed: llama, mistral, qwen2"):
        Llava.describe(LlavaConfig(text_config={"model_type": "gemma2"}))
    with pytest.raises(CheckpointError, match=r"Vision tower type 'pixtral'.*Allowed: clip_vision_model, siglip_"):
        Llava.describe(LlavaConfig(vision_config={"model_type": "pixtral"}))
    sliding = Llava.describe(LlavaConfig(text_config=MistralConfig(max_position_embeddings=32768)))
    assert sliding.max_positions == 4096, "within its first window it attends to everything"
    config = LlavaConfig(text_config=MistralConfig(sliding_window=None, num_hidden_layers=3))
    assert Llava.describe(config).num_blocks == 3
    Llava.trunks, kept = {"llama": frozenset({"hidden_size"})}, Llava.trunks
    try:
        with pytest.raises(CheckpointError, match="attribute num_hidden_layers=7 is not one this engine knows"):
            Llava.describe(LlavaConfig(text_config={"model_type": "llama", "num_hidden_layers": 7}))
    finally:
        Llava.trunks = kept


def spoiled(change, model_type="llava"):
    settings = TinySettings(model_type, num_blocks=2, hidden_size=32, image_size=56)
    processor = build_processor(settings)
    change(processor)
    return build_model(settings), processor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "image_token", None), "image token is '' .id None."),
        (
            lambda p: setattr(p, "image_token", "</s>"),
            "image token is '</s>' .id 2., but the checkpoint marks pictures",
        ),
        (lambda p: setattr(p.tokenizer, "pad_token", None), "tokenizer has no pad token"),
    ],
)
def test_processors_that_do_not_fit_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        Llava(*spoiled(change))


def test_features_that_do_not_match_the_prompt_are_named():
    family = Llava(*spoiled(lambda _: None))
    family.processor.patch_size = 28
    questions = [ask(4, "What?"), ask(5, "What?", photo("cat", 60, 60))]
    with pytest.raises(
        InputError, match=r"document 5: the prompt has 4 image tokens, but .* 16 features for 1 picture"
    ):
        family.embed(family.encode(questions))


def test_options_that_are_refused():
    family = make_family("llava")
    with pytest.raises(OptionError, match="Unknown conversation 'vicuna'. Did you mean 'vicuna_v1'"):
        Llava(family.model, family.processor, InputOptions("vicuna"))
    with pytest.raises(OptionError, match="Unknown image_aspect_ratio 'padd'. Did you mean 'pad'"):
        Llava(family.model, family.processor, InputOptions(image_aspect_ratio="padd"))


def test_questions_that_are_refused():
    family = make_family("llava")
    cat = photo("cat", 40, 40)
    with pytest.raises(InputError, match="task toy, split val, document 3: the question is empty"):
        family.encode([ask(3, "  \n", cat)])
    with pytest.raises(InputError, match="document 3: the text contains the picture placeholder"):
        family.encode([ask(3, "An <image>?", cat)])
    broken = Question("toy", "val", 9, lambda: 1 / 0)
    with pytest.raises(InputError, match="document 9: cannot be read: ZeroDivisionError"):
        family.encode([broken])
    thin = replace(ask(1, "What?", Image.new("RGB", (4000, 1))))
    with pytest.raises(InputError, match="4000 x 1 pixels is thinner than 1:100.*image_aspect_ratio=pad"):
        make_family("llava", "vicuna_v1", "processor").encode([thin])
