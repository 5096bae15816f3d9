"""How an answer is generated: the settings of one request, read from a task's `generation_kwargs`, and what came."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmms_ca_plugin import options
from lmms_ca_plugin.errors import OptionError, unknown

# Options of other entries that tasks carry; they say nothing about how to generate here.
WITHOUT_MEANING = frozenset({"image_aspect_ratio", "use_cache"})


@dataclass(frozen=True)
class Generation:
    """Settings of one request.

    Attributes:
        max_new_tokens: The most tokens an answer may have; 16 where the task gives none.
        until: The answer ends before the first of these texts, none of which is empty.
        temperature: 0 is greedy; above, tokens are sampled.
        top_p: Sampling keeps the likeliest tokens that hold this much probability.
        num_beams: 1, or beam search.
    """

    max_new_tokens: int = 16
    until: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise OptionError(f"max_new_tokens={self.max_new_tokens} is not allowed. Allowed: 1 and more.")
        if "" in self.until:
            raise OptionError(
                f"until={list(self.until)} holds an empty text, which would end every answer before it begins. "
                "Allowed: texts that are not empty; until=[] stands for none."
            )
        if not 0 <= self.temperature < math.inf:
            raise OptionError(f"temperature={self.temperature} is not allowed. Allowed: 0 (greedy) and more.")
        # Greedy decoding does not ask for it, and tasks of the harness that decode so say 0.
        if not 0 <= self.top_p <= 1 or (self.top_p == 0 and self.temperature > 0):
            raise OptionError(f"top_p={self.top_p} is not allowed. Allowed: above 0, up to 1.")
        if self.num_beams < 1:
            raise OptionError(f"num_beams={self.num_beams} is not allowed. Allowed: 1 and more.")
        if self.num_beams > 1 and self.temperature > 0:
            raise OptionError(
                f"num_beams={self.num_beams} together with temperature={self.temperature} is not supported. "
                "Take beams with temperature=0, or sampling with num_beams=1."
            )

    @classmethod
    def from_kwargs(cls, given: Mapping[str, Any]) -> Generation:
        """Reads a task's generation kwargs, which stay as they are.

        Args:
            given: `until`, `max_new_tokens`, `do_sample`, `temperature`, `top_p`, `num_beams`; None means not given.
                The temperature alone says whether tokens are sampled, as in the harness's own entries: tasks carry
                `do_sample=false`, and `--gen_kwargs temperature=...` does not take it away. `do_sample=true` without
                a temperature means 1.

        Returns:
            The settings.

        Raises:
            OptionError: An unknown key, or a value that is not allowed.
        """
        kwargs = {k: v for k, v in given.items() if v not in (None, "None") and k not in WITHOUT_MEANING}
        known = {"do_sample", *options.option_types(cls)}
        for name in kwargs:
            if name not in known:
                raise unknown("generation setting", name, known)
        sampling, settings = options.split(kwargs, (_Sampling, cls))
        do_sample = options.build(_Sampling, sampling).do_sample
        generation = options.build(cls, {"temperature": 1.0, **settings} if do_sample else settings)
        if do_sample and generation.temperature == 0:
            raise OptionError(
                "do_sample=true together with temperature=0 is not allowed. Give a temperature above 0 to sample, or "
                "do_sample=false to be greedy."
            )
        return generation


@dataclass(frozen=True)
class _Sampling:
    """What tasks say of sampling beside the temperature."""

    do_sample: bool = False


@dataclass(frozen=True)
class NewTokens:
    """What was generated for one row.

    Attributes:
        ids: Token ids, without the end token.
        ended: Whether an end token came behind them; else a stop text, or the most tokens, ended the answer.
        margin: The least by which a greedy choice, the end's included, beat the next best, in logits: near 0, another
            order of the same sums may choose otherwise. None where nothing was chosen greedily, or nothing was left.
    """

    ids: list[int]
    ended: bool
    margin: float | None = None
