"""How an answer is generated: the settings of one request, read from a task's `generation_kwargs`, and what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmms_ca_plugin.errors import OptionError, unknown

# Options of other entries that tasks carry; they say nothing about how to generate here.
WITHOUT_MEANING = frozenset({"image_aspect_ratio", "use_cache"})


@dataclass(frozen=True)
class Generation:
    """Settings of one request.

    Attributes:
        max_new_tokens: The most tokens an answer may have; 16 where the task gives none.
        until: The answer ends before the first of these texts.
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
        if self.temperature < 0:
            raise OptionError(f"temperature={self.temperature} is not allowed. Allowed: 0 (greedy) and more.")
        if not 0 < self.top_p <= 1:
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
                Tokens are sampled if the temperature is above 0, unless `do_sample` is false; `do_sample` without a
                temperature means 1.

        Returns:
            The settings.

        Raises:
            OptionError: An unknown key, or a value that is not allowed.
        """
        known = {"until", "max_new_tokens", "do_sample", "temperature", "top_p", "num_beams"}
        kwargs = {k: v for k, v in given.items() if v is not None and k not in WITHOUT_MEANING}
        for name in kwargs:
            if name not in known:
                raise unknown("generation setting", name, known)
        until = kwargs.pop("until", ())
        sample = kwargs.pop("do_sample", None)
        temperature = float(kwargs.pop("temperature", 1.0 if sample else 0.0))
        return cls(
            until=(until,) if isinstance(until, str) else tuple(until),
            temperature=0.0 if sample is False else temperature,
            top_p=float(kwargs.pop("top_p", 1.0)),
            max_new_tokens=int(kwargs.pop("max_new_tokens", cls.max_new_tokens)),
            num_beams=int(kwargs.pop("num_beams", cls.num_beams)),
        )


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
