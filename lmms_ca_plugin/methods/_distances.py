"""How far apart two blocks' attention over the image tokens is.

Source: Song, Li, Yu, "Where Does Vision Meet Language?", equation 2 (Hellinger); the Jensen-Shannon divergence is our
control.

Axis letters: s prompt positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def distribution(weights: Tensor) -> Tensor:
    """Divides attention mass (..., s) by its sum; a row without mass (a prompt without pictures) stays 0."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def hellinger(p: Tensor, q: Tensor) -> Tensor:
    """Hellinger distance, equation 2: ||sqrt p - sqrt q|| / sqrt 2, (..., s) -> (...), in [0, 1]."""
    distance: Tensor = torch.linalg.vector_norm(p.sqrt() - q.sqrt(), dim=-1) / math.sqrt(2)
    return distance


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence to base 2, (..., s) -> (...), in [0, 1]; 0 log 0 is 0."""
    middle = (p + q) / 2

    def to_middle(x: Tensor) -> Tensor:
        return (torch.xlogy(x, x) - torch.xlogy(x, middle)).sum(-1)

    return (to_middle(p) + to_middle(q)) / (2 * math.log(2))


DistanceName = Literal["hellinger", "jsd"]
DISTANCES: dict[DistanceName, Callable[[Tensor, Tensor], Tensor]] = {"hellinger": hellinger, "jsd": jensen_shannon}
