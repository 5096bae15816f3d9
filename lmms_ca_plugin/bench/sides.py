"""What is measured against what: a method through the engine, and transformers' `generate`.

A side answers one batch of questions from the picture to the last token: preprocessing, vision, prefill, decoding; a
runner answers any number of them. None stops at an end token, so all decode the same number of tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Protocol

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lmms_ca_plugin.engine.ahead import Spent
from lmms_ca_plugin.engine.engine import Engine
from lmms_ca_plugin.engine.generation import Generation
from lmms_ca_plugin.engine.requests import Request, RunOptions
from lmms_ca_plugin.errors import LmmsCaError
from lmms_ca_plugin.families._contract import Family, Message, Question
from lmms_ca_plugin.methods._contract import Method

PICTURE_SIZE = (640, 480)  # the size of most pictures in the six data sets
THINGS = ("left", "largest", "smallest", "brightest", "rightmost", "topmost")


class Side(Protocol):
    """One way to answer a batch."""

    @property
    def name(self) -> str:
        """How tables call it."""

    def answer(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Answers a batch and returns each sample's log.

        Raises:
            LmmsCaError: An answer has another number of tokens than asked for.
        """


@dataclass(frozen=True)
class MethodSide:
    """A method through the engine."""

    name: str
    engine: Engine
    generation: Generation

    @classmethod
    def build(
        cls, name: str, family: Family, method: Method, batch_size: int, seed: int, new_tokens: int
    ) -> MethodSide:
        """Attaches a method to a model, which proves at once that it works there."""
        engine = Engine(family, method, RunOptions(batch_size=batch_size, seed=seed), name=name, is_main=False)
        engine.end_tokens = frozenset()
        return cls(name, engine, Generation(max_new_tokens=new_tokens))

    def answer(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Answers a batch through the engine."""
        answers = self.engine.answer_batch(questions, self.generation)
        for answer in answers:
            check_tokens(self.name, answer.new_tokens, self.generation.max_new_tokens)
        return [answer.log for answer in answers]


@dataclass(frozen=True)
class NaiveSide:
    """Attention maps as transformers gives them: eager attention, every weight of every block and step is returned."""

    family: Family
    new_tokens: int
    name: str = "naive"

    def answer(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Answers a batch through `generate`; the log counts the weights that it returned."""
        with eager(self.family), torch.inference_mode():
            output, new = generated(self.family, questions, self.new_tokens, output_attentions=True)
        check_tokens(self.name, new.shape[1], self.new_tokens)
        weights = sum(block.numel() for step in output.attentions for block in step)
        if not weights:
            raise LmmsCaError("The naive way returned no attention weights; it would be measured as too cheap.")
        return [{"attention_weights": weights // len(questions)} for _ in questions]


class Runner(Protocol):
    """One way to answer any number of questions."""

    @property
    def name(self) -> str:
        """How tables call it."""

    def texts(self, questions: Sequence[Question]) -> list[str]:
        """Answers questions, in batches of its own size.

        Raises:
            LmmsCaError: An answer has another number of tokens than asked for.
        """


@dataclass(frozen=True)
class EngineRunner:
    """Vanilla through the engine, in batches that are decoded and preprocessed ahead.

    Attributes:
        side: Vanilla; it answers one batch.
        spent: What each run has spent on encoding.
    """

    side: MethodSide
    spent: list[Spent] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Vanilla with its batch size."""
        return f"{self.side.name}, batch {self.side.engine.options.batch_size}"

    def texts(self, questions: Sequence[Question]) -> list[str]:
        """Answers questions through the engine."""
        answers = self.side.engine.answer([Request(question, self.side.generation) for question in questions])
        self.spent.append(self.side.engine.spent)
        for answer in answers:
            check_tokens(self.name, answer.new_tokens, self.side.generation.max_new_tokens)
        return [answer.text for answer in answers]


@dataclass(frozen=True)
class GenerateRunner:
    """Processor and `generate`, one question after the other: what the harness's own `llava_hf` does."""

    family: Family
    new_tokens: int
    name: str = "generate, batch 1"

    def texts(self, questions: Sequence[Question]) -> list[str]:
        """Answers questions through `generate`."""
        return [self._text(question) for question in questions]

    def _text(self, question: Question) -> str:
        _, new = generated(self.family, [question], self.new_tokens)
        check_tokens(self.name, new.shape[1], self.new_tokens)
        text: str = self.family.processor.tokenizer.decode(new[0], skip_special_tokens=True)
        return text.strip()


def generated(family: Family, questions: Sequence[Question], new_tokens: int, **more: Any) -> tuple[Any, Tensor]:
    """Answers a batch greedily through transformers' `generate`, from the pictures on, with a fixed number of tokens.

    Returns:
        What `generate` gives, and the new tokens (b, n).
    """
    model, inputs = family.model, family.encode(questions)
    output = model.generate(
        input_ids=inputs.input_ids.to(model.device),
        attention_mask=inputs.attention_mask.long().to(model.device),
        pixel_values=inputs.pictures["pixel_values"].to(model.device, model.dtype),
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=family.processor.tokenizer.eos_token_id,
        return_dict_in_generate=True,
        **more,
    )
    return output, output.sequences[:, inputs.input_ids.shape[1] :]


@contextmanager
def eager(family: Family) -> Iterator[None]:
    """Has the whole model attend eagerly inside, as one loaded with `attn_implementation="eager"` does."""
    before = family.text_config._attn_implementation
    family.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        family.model.set_attn_implementation(before)


def make_questions(number: int, seed: int) -> list[Question]:
    """Draws pictures of coloured rectangles and asks about them.

    Args:
        number: How many.
        seed: Seeds the pictures and the questions, whose lengths differ.
    """
    chance = random.Random(seed)
    questions = []
    for index in range(number):
        picture = Image.new("RGB", PICTURE_SIZE, _colour(chance))
        draw = ImageDraw.Draw(picture)
        for _ in range(24):
            x, y = chance.randrange(PICTURE_SIZE[0]), chance.randrange(PICTURE_SIZE[1])
            draw.rectangle((x, y, x + chance.randrange(8, 160), y + chance.randrange(8, 120)), fill=_colour(chance))
        things = " and the ".join(chance.sample(THINGS, chance.randrange(1, 4)))
        text = f"What color is the {things} shape?\nAnswer the question using a single word or phrase."
        conversation = (Message("user", text, (picture,)),)
        questions.append(Question("bench", "none", index, lambda turns=conversation: turns, len(text)))  # type: ignore[misc]
    return questions


def as_files(questions: Sequence[Question]) -> list[Question]:
    """Makes the pictures JPEG files in memory, which are decoded each time they are read, as data sets decode them."""
    return [_as_file(question) for question in questions]


def _as_file(question: Question) -> Question:
    (message,) = question.read()
    file = BytesIO()
    message.pictures[0].save(file, "JPEG", quality=90)

    def conversation() -> tuple[Message, ...]:
        picture = Image.open(BytesIO(file.getvalue()))
        picture.load()
        return (Message(message.role, message.text, (picture,)),)

    return replace(question, conversation=conversation)


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def check_tokens(name: str, given: int, wanted: int) -> None:
    """Refuses an answer of another length than all sides must have."""
    if given != wanted:
        raise LmmsCaError(f"{name} decoded {given} tokens in place of {wanted}; its cost cannot be compared.")
