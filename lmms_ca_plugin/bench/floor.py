"""How few operations a method can do, counted from token numbers and shapes, relative to vanilla.

Rule: multiply-adds. A position that passes a block costs the block's weights, and twice the hidden size for every key
that it attends to; a picture costs the vision tower and the projector; a new token costs the head.
It bounds operations, not seconds: what both sides share and nobody counts (preprocessing, waiting for the weights in
each decoding step) brings a ratio of times nearer to 1, and below the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lmms_ca_plugin.families._contract import Family, Message, Question
from lmms_ca_plugin.methods.vicrop import GENERAL_REQUEST


@dataclass(frozen=True)
class Work:
    """What is done for a batch.

    Attributes:
        block_tokens: Positions that pass a block, summed over blocks.
        pictures: Pictures that pass the vision tower.
        operations: Multiply-adds.
    """

    block_tokens: int = 0
    pictures: int = 0
    operations: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.block_tokens + other.block_tokens,
            self.pictures + other.pictures,
            self.operations + other.operations,
        )

    def __sub__(self, other: Work) -> Work:
        return self + Work(-other.block_tokens, -other.pictures, -other.operations)


@dataclass(frozen=True)
class Floor:
    """The least work of a method, beside vanilla's."""

    vanilla: Work
    method: Work

    @property
    def ratio(self) -> float:
        """The method's operations over vanilla's."""
        return self.method.operations / self.vanilla.operations


def two_picture_floor(
    family: Family, questions: Sequence[Question], logs: Sequence[Mapping[str, Any]], new_tokens: int
) -> Floor:
    """Counts ViCrop's `rel_att`: maps of two prompts, then an answer about picture and crop.

    The two prompts differ only behind the picture, so its positions pass once, and all pass the blocks below the map's.
    Of that one the keys are needed, and one position's queries. The crop passes the vision tower too.

    Args:
        family: The loaded checkpoint, a LLaVA-1.5.
        questions: One picture each.
        logs: What the method decided; `map_layer` is the block it read.
        new_tokens: New tokens of each answer.
    """
    vanilla, method = Work(), Work()
    for question, log in zip(questions, logs, strict=True):
        start, asked = _lengths(family, question)
        _, general = _lengths(family, _changed(question, text=GENERAL_REQUEST))
        longer = sum(_lengths(family, _changed(question, times=2)))
        vanilla += picture_work(family) + _answer(family, start + asked, new_tokens)
        block = log["map_layer"]
        method += picture_work(family) + picture_work(family) + _answer(family, longer, new_tokens)
        method += _passes(family, block, start, 0) + _keys(family, start)
        for text in (asked, general):
            method += _passes(family, block, text, start) + _keys(family, text) + _last_weights(family, start + text)
    return Floor(vanilla, method)


def _keys(family: Family, tokens: int) -> Work:
    """Counts positions of which a block computes the keys alone."""
    trunk = family.trunk
    return Work(tokens, 0, tokens * trunk.hidden_size * trunk.num_key_value_heads * trunk.head_size)


def _last_weights(family: Family, keys: int) -> Work:
    """Counts one position's queries, and its attention's weights over so many keys."""
    trunk = family.trunk
    return Work(operations=trunk.num_heads * trunk.head_size * (trunk.hidden_size + keys))


def _changed(question: Question, text: str | None = None, times: int = 1) -> Question:
    """Asks another text, or shows the pictures several times."""
    conversation = tuple(Message(m.role, m.text if text is None else text, m.pictures * times) for m in question.read())
    return replace(question, conversation=lambda: conversation)


def _lengths(family: Family, question: Question) -> tuple[int, int]:
    """Counts a prompt's positions up to the last image token, and behind it."""
    ids = family.encode([question]).input_ids[0]  # (s,)
    start = int((ids == family.trunk.image_token_id).nonzero()[-1, 0]) + 1
    return start, len(ids) - start


def _answer(family: Family, prompt: int, new_tokens: int) -> Work:
    return prompt_work(family, prompt) + decoding_work(family, prompt, new_tokens)


def prompt_work(family: Family, prompt: int, first_block: int = 0) -> Work:
    """Counts a prompt's pass from a block on; in the last one, only keys and values are needed of all positions.

    Args:
        family: The loaded checkpoint.
        prompt: Its positions.
        first_block: The block at which it enters; the number of blocks for one that passes none.
    """
    trunk = family.trunk
    blocks = trunk.num_blocks - first_block
    if not blocks:
        return Work()
    if family.narrow(trunk.num_blocks - 1) is None:
        return _passes(family, blocks, prompt, 0)
    keys_and_values = 2 * trunk.hidden_size * trunk.num_key_value_heads * trunk.head_size
    cached = Work(prompt - 1, 0, (prompt - 1) * keys_and_values)
    return _passes(family, blocks - 1, prompt, 0) + cached + _passes(family, 1, 1, prompt - 1)


def decoding_work(family: Family, prompt: int, new_tokens: int) -> Work:
    """Counts the head of every new token, and the passes of all but the last, behind a prompt."""
    work = Work(operations=family.trunk.vocabulary * family.trunk.hidden_size * new_tokens)
    for position in range(new_tokens - 1):  # the last new token passes no block
        work += _passes(family, family.trunk.num_blocks, 1, prompt + position)
    return work


def _passes(family: Family, blocks: int, tokens: int, before: int) -> Work:
    """Positions that pass the first blocks behind `before` others, each seeing those, itself and what came between."""
    keys = tokens * before + tokens * (tokens + 1) // 2
    weights = _weights(family.blocks[0])
    return Work(blocks * tokens, 0, blocks * (tokens * weights + 2 * family.trunk.hidden_size * keys))


def picture_work(family: Family) -> Work:
    """Counts one picture through the vision tower and the projector of a LLaVA-1.5."""
    tower, projector = family.model.model.vision_tower, family.model.model.multi_modal_projector
    config = family.model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1  # and the class token
    attention = 2 * config.hidden_size * tokens**2 * config.num_hidden_layers
    return Work(0, 1, tokens * _weights(tower) + attention + (tokens - 1) * _weights(projector))


def _weights(module: nn.Module) -> int:
    """Multiply-adds per position: the weights of all linear maps, and of the convolution that makes the patches."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d))
