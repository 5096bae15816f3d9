"""What is asked, and what a family's processor makes of it; part of the contract of families.

Axis letters: b samples, s prompt positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import pad

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.families._views import Features

AspectRatio = Literal["pad", "processor"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: What is said, without picture placeholders.
        pictures: The pictures shown in this turn, before the text.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Question:
    """One document to be answered.

    Attributes:
        task: The task's name.
        split: The split the document is from.
        doc_id: The document's index in that split.
        conversation: Called when the question's turn has come, so that pictures are decoded late.
        length: Any number that grows with the prompt's length; questions are batched in its order.
        repeat: How many times it has been asked before in the same run.
    """

    task: str
    split: str
    doc_id: int
    conversation: Callable[[], tuple[Message, ...]]
    length: int = 0
    repeat: int = 0

    @property
    def name(self) -> str:
        """How messages call this question."""
        return f"task {self.task}, split {self.split}, document {self.doc_id}"

    def read(self) -> tuple[Message, ...]:
        """Gets the conversation and decodes its pictures.

        Raises:
            InputError: The task's own code failed on this document, e.g. because a picture cannot be decoded.
        """
        try:
            return self.conversation()
        except Exception as error:  # whatever the task's code or the image library raises, the document must be named
            raise InputError(f"{self.name}: cannot be read: {type(error).__name__}: {error}") from error

    def once(self) -> Question:
        """Reads the conversation now, so that whoever asks again gets the same pictures, decoded already."""
        conversation = self.read()
        return replace(self, conversation=lambda: conversation)


@dataclass(frozen=True)
class Inputs:
    """A batch as the processor gives it, on the CPU, left-padded.

    Attributes:
        input_ids: (b, s) token ids; picture placeholders are expanded already.
        attention_mask: (b, s) bool, True at real tokens.
        pictures: What the vision side takes, e.g. `pixel_values`; empty when no sample has a picture.
        num_pictures: Pictures per sample.
        questions: What was asked, for messages.
        features: Of all pictures in order, where they have been looked at already; they take the pictures' place.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pictures: dict[str, Tensor]
    num_pictures: tuple[int, ...]
    questions: tuple[Question, ...]
    features: tuple[Features, ...] | None = None

    def part(self, first: int, end: int) -> Inputs:
        """Takes the samples from `first` to before `end`, without the padding that only the others need."""
        start = int(self.attention_mask[first:end].any(0).int().argmax())
        before, count = sum(self.num_pictures[:first]), sum(self.num_pictures[first:end])
        return Inputs(
            self.input_ids[first:end, start:],
            self.attention_mask[first:end, start:],
            {k: v[before : before + count] for k, v in self.pictures.items()} if count else {},
            self.num_pictures[first:end],
            self.questions[first:end],
            None if self.features is None else self.features[before : before + count],
        )

    @classmethod
    def joined(cls, parts: Sequence[Inputs], pad_token: int) -> Inputs:
        """Puts batches one below the other, as the processor would have made them at once.

        Args:
            parts: At least one; none has been looked at yet.
            pad_token: Fills the shorter prompts, from the left.
        """
        if len(parts) == 1:
            return parts[0]
        longest = max(part.input_ids.shape[1] for part in parts)
        missing = [(longest - part.input_ids.shape[1], 0) for part in parts]
        names = dict.fromkeys(name for part in parts for name in part.pictures)
        return cls(
            torch.cat([pad(of.input_ids, more, value=pad_token) for of, more in zip(parts, missing, strict=True)]),
            torch.cat([pad(of.attention_mask, more, value=False) for of, more in zip(parts, missing, strict=True)]),
            {name: _below([part.pictures[name] for part in parts if part.pictures]) for name in names},
            tuple(number for part in parts for number in part.num_pictures),
            tuple(question for part in parts for question in part.questions),
        )


def _below(tensors: Sequence[Tensor]) -> Tensor:
    """Joins pictures (n, ...), filled up with zeros to the shape of the largest, as processors do with tiles."""
    shape = [max(tensor.shape[axis] for tensor in tensors) for axis in range(1, tensors[0].ndim)]
    joined = tensors[0].new_zeros(sum(map(len, tensors)), *shape)
    first = 0
    for tensor in tensors:
        joined[(slice(first, first + len(tensor)), *map(slice, tensor.shape[1:]))] = tensor
        first += len(tensor)
    return joined
