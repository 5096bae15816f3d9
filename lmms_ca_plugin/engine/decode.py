"""From logits to answers: greedy and sampled decoding, one token for the whole batch per pass.

Deviates from transformers' `generate`: sampling draws every sample from a generator of its own, seeded by (seed, task,
document, repeat), and a repetition penalty leaves padding out, so that an answer does not depend on what else was in
its batch. Beam search is transformers' own, in `engine/beams.py`.

Axis letters: b rows: samples, or their branches; v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lmms_ca_plugin.engine.flight import Flight
from lmms_ca_plugin.engine.generation import Generation, NewTokens


def picker(generation: Generation, seeds: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Makes the rule that takes the next token of every row.

    Args:
        generation: Greedy at temperature 0, else sampled.
        seeds: One whole number per row, its sample's.

    Returns:
        Logits (b, v) -> token ids (b,).
    """
    if generation.temperature == 0:
        return lambda logits: logits.argmax(-1)
    warp = LogitsProcessorList([TemperatureLogitsWarper(generation.temperature), TopPLogitsWarper(generation.top_p)])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def sample(logits: Tensor) -> Tensor:
        probabilities = warp(None, logits.float()).softmax(-1).cpu()  # (b, v)
        drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(probabilities, generators, strict=True)]
        return torch.cat(drawn).to(logits.device)

    return sample


def penalised(flight: Flight, scores: Tensor) -> Tensor:
    """Applies the checkpoint's own repetition penalty to scores (b, v), over a row's prompt and new tokens."""
    if flight.family.repetition_penalty == 1:
        return scores
    precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
    penalty = RepetitionPenaltyLogitsProcessor(flight.family.repetition_penalty)
    penalised_scores: Tensor = penalty(flight.seen.to(scores.device), precise)
    return penalised_scores


def cut(text: str, until: Sequence[str]) -> tuple[str, bool]:
    """Cuts a text before the first of the stop texts; says whether one was found."""
    ends = [text.index(stop) for stop in until if stop in text]
    return (text[: min(ends)], True) if ends else (text, False)


def decode(
    flight: Flight, generation: Generation, end_tokens: frozenset[int], to_text: Callable[[list[int]], str]
) -> list[NewTokens]:
    """Generates until every row has ended.

    Args:
        flight: The rows, attached and before their prefill.
        generation: The settings, the same for all rows.
        end_tokens: Tokens that end an answer.
        to_text: Turns token ids into text, to look for the stop texts.

    Returns:
        The new tokens of every row.
    """
    pick = picker(generation, flight.seeds)
    answers: list[list[int]] = [[] for _ in flight.seeds]
    stopped, ended = [False] * len(answers), [False] * len(answers)
    choices, gaps = [0] * len(answers), []
    logits = penalised(flight, flight.prefill())  # (b, v)
    for length in range(1, generation.max_new_tokens + 1):
        tokens = pick(logits)  # (b,)
        best = logits.topk(2).values  # (b, 2)
        gaps.append(best[:, :1] - best[:, 1:])  # (b, 1)
        for row, token in enumerate(tokens.tolist()):
            if stopped[row]:
                continue
            choices[row] += 1
            if token in end_tokens:
                stopped[row] = ended[row] = True
                continue
            answers[row].append(token)
            stopped[row] = bool(generation.until) and cut(to_text(answers[row]), generation.until)[1]
        if all(stopped) or length == generation.max_new_tokens:
            break
        logits = penalised(flight, flight.step(tokens))
    margins = [min(row[:made]) for row, made in zip(torch.cat(gaps, 1).tolist(), choices, strict=True)]
    found = [margin if generation.temperature == 0 and margin < math.inf else None for margin in margins]
    return [NewTokens(*row) for row in zip(answers, ended, found, strict=True)]
