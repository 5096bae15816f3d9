"""What a request of the harness asks, as the engine takes it.

Rules, each against a trap of lmms-eval 0.7.3:
- Every request asks its own task for its own document. (Entries that take the batch's first task get wrong pictures.)
- Generation kwargs are never changed. (The response cache uses them as its key.)
- Half a picture is refused. (The harness has Pillow fill up truncated files in grey.)
- Repeats are numbered. (The harness hands on the same request several times, and counts on answers that differ.)
- What the chat form would drop in silence (system instruction, description, few-shot examples) is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lmms_eval.api.instance import Instance
from PIL import Image, ImageFile

from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request
from lmms_ca_plugin.errors import InputError, OptionError
from lmms_ca_plugin.families._contract import Message, Question

Documents = Mapping[str, Any]
"""The data by task, then by split, then by document."""


def chat_question(request: Instance, documents: Documents) -> Question:
    """Turns a request of the form that gets messages into a question.

    Args:
        request: The request.
        documents: Where its document lies.

    Returns:
        A question that fetches its document when its turn has come.
    """
    context, to_messages, _kwargs, doc_id, task, split = request.args

    def conversation() -> tuple[Message, ...]:
        messages = to_messages(documents[task][split][doc_id])
        turns = tuple(_message(message) for message in messages)
        text = turns[-1].text
        if context != text and context.endswith(text):
            raise InputError(
                "the chat form would drop the system instruction, description or few-shot examples that the "
                f"harness put before the question: {context.removesuffix(text)!r}. Run with --force_simple."
            )
        return turns

    return Question(task, split, doc_id, conversation, len(context))


def simple_question(request: Instance, documents: Documents) -> Question:
    """Turns a request of the form that gets a text and pictures into a question; see `chat_question`."""
    context, _kwargs, to_visual, doc_id, task, split = request.args

    def conversation() -> tuple[Message, ...]:
        visuals = to_visual(documents[task][split][doc_id]) or []
        return (Message("user", context, tuple(_picture(visual) for visual in visuals)),)

    return Question(task, split, doc_id, conversation, len(context))


def generation_of(request: Instance, place: int = 2) -> Generation:
    """Reads a request's generation kwargs.

    Args:
        request: The request.
        place: Where they stand among its arguments: 2 in the chat form, 1 in the simple one.

    Returns:
        The settings.

    Raises:
        OptionError: A setting is unknown or not allowed; the task is named.
    """
    try:
        return Generation.from_kwargs(request.args[place])
    except OptionError as error:
        raise OptionError(f"task {request.task_name}: {error}") from error


def numbered(requests: Sequence[Request]) -> list[Request]:
    """Numbers the repeats of each question, so that each is sampled from a seed of its own.

    Args:
        requests: All of a run's, in the order asked.

    Returns:
        The same, each question with the number of times it was asked before.
    """
    asked = Counter[tuple[str, str, int]]()
    found = []
    for request in requests:
        question = request.question
        document = (question.task, question.split, question.doc_id)
        found.append(replace(request, question=replace(question, repeat=asked[document])))
        asked[document] += 1
    return found


def _message(message: dict[str, Any]) -> Message:
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    strange = [part["type"] for part in parts if part["type"] not in ("text", "image")]
    if strange:
        raise InputError(f"it shows {strange[0]}; only text and pictures are supported.")
    pictures = tuple(_picture(part["url"]) for part in parts if part["type"] == "image")
    return Message(message["role"], "\n".join(part["text"] for part in parts if part["type"] == "text"), pictures)


def _picture(visual: Any) -> Image.Image:
    if isinstance(visual, str):
        visual = Image.open(visual)
    if not isinstance(visual, Image.Image):
        raise InputError(f"it shows a {type(visual).__name__}; only pictures are supported.")
    visual.load()
    return visual


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Has Pillow refuse truncated files, as it does outside the harness."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
