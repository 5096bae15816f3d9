"""From turns to a prompt's text, as LLaVA's checkpoints were trained to be asked.

Source: haotian-liu/LLaVA, `llava/conversation.py` (`vicuna_v1`, `chatml_direct`), restated; `processor` is the
checkpoint's own chat template.
Rule: a checkpoint is asked as it was trained, which its template tells: one that speaks of USER and ASSISTANT leaves
Vicuna's system sentence out, and one for LLaVA-1.6-34B leaves out its own. Any other template is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from PIL import Image

from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._inputs import Message
from lmms_ca_plugin.families._trunk import Trunk

Conversation = Literal["vicuna_v1", "chatml_direct", "processor"]
VICUNA_V1_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
CHATML_SYSTEM = "Answer the questions."


def vicuna_v1(processor: Any, turns: Sequence[Message]) -> str:
    """Renders turns in Vicuna's first version, up to where the model's answer begins."""
    system, rendered, gap = VICUNA_V1_SYSTEM, "", " "
    for turn in turns:
        if turn.role == "system":
            system = turn.text
        elif turn.role == "user":
            rendered, gap = f"{rendered}{gap}USER: {_shown(processor, turn)}", " "
        else:
            rendered, gap = f"{rendered}{gap}ASSISTANT: {turn.text}{processor.tokenizer.eos_token}", ""
    return f"{system}{rendered}{gap}ASSISTANT:"


def chatml_direct(processor: Any, turns: Sequence[Message]) -> str:
    """Renders turns in ChatML as LLaVA-1.6-34B was trained, up to where the model's answer begins."""
    system = () if any(turn.role == "system" for turn in turns) else (Message("system", CHATML_SYSTEM),)
    said = (f"<|im_start|>{turn.role}\n{_shown(processor, turn)}<|im_end|>" for turn in (*system, *turns))
    return f"{''.join(said)}<|im_start|>assistant\n"


def from_template(processor: Any, turns: Sequence[Message]) -> str:
    """Renders turns by the processor's chat template, or by its tokenizer's where the processor has none.

    Raises:
        CheckpointError: It cannot render them.
    """
    given = [
        {
            "role": turn.role,
            "content": [{"type": "image"} for _ in turn.pictures] + [{"type": "text", "text": turn.text}],
        }
        for turn in turns
    ]
    try:
        template = None if processor.chat_template else processor.tokenizer.get_chat_template()
        text: str = processor.apply_chat_template(given, chat_template=template, add_generation_prompt=True)
    except (TemplateError, TypeError, KeyError) as error:
        raise CheckpointError(f"The checkpoint's chat template cannot render the conversation: {error}") from error
    return text


RENDERERS = {"vicuna_v1": vicuna_v1, "chatml_direct": chatml_direct, "processor": from_template}


def trained_on(processor: Any, trunk: Trunk) -> Conversation:
    """Finds the conversation that a checkpoint was trained on: by its template, or where it has none, by its trunk.

    Raises:
        CheckpointError: It has a template that cannot render a question.
    """
    if not _has_template(processor):
        return "vicuna_v1" if trunk.is_llama_2 else "processor"  # which then says what is missing
    asked = from_template(processor, (Message("user", "?"),))
    if "USER:" in asked and "ASSISTANT:" in asked:
        return "vicuna_v1"
    return "chatml_direct" if trunk.is_yi and "<|im_start|>" in asked else "processor"


def check_placeholder(processor: Any, conversation: str, conversations: Sequence[str]) -> None:
    """Refuses a conversation that does not show the model the one picture of a question.

    Args:
        processor: The checkpoint's.
        conversation: How it is to be asked.
        conversations: How else it may be asked, for messages.

    Raises:
        CheckpointError: There is no template, its text holds another number of placeholders, or it cannot be rendered.
    """
    others = "".join(f"conversation={name}, " for name in conversations if name != conversation)
    if conversation == "processor" and not _has_template(processor):
        raise CheckpointError(
            "The checkpoint has no chat template, so that nothing says how it is to be asked. Allowed: "
            f"{others}{'or ' * bool(others)}a chat_template.jinja beside its config."
        )
    turn = Message("user", "?", (Image.new("RGB", (1, 1)),))
    found = RENDERERS[conversation](processor, (turn,)).count(processor.image_token)
    if found != 1:
        raise CheckpointError(
            f"conversation={conversation}: a question with one picture has {found} placeholders "
            f"{processor.image_token!r}, so the chat template is not made for pictures. Allowed: "
            f"{others}{'or ' * bool(others)}the template that belongs to the checkpoint."
        )


def _has_template(processor: Any) -> bool:
    return bool(processor.chat_template or processor.tokenizer.chat_template)


def _shown(processor: Any, turn: Message) -> str:
    """A turn's text behind one placeholder per picture."""
    placeholders = f"{processor.image_token}\n" * len(turn.pictures)
    return f"{placeholders}{turn.text}"
