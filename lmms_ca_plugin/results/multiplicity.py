"""The price of looking at several tasks at once.

Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from lmms_ca_plugin.errors import InputError

ALPHA = 0.05
"""The level at which tables and figures mark a difference, and verdicts are given where no other is asked for."""

Of = TypeVar("Of", bound=Hashable)


def holm(p_values: Mapping[Of, float]) -> dict[Of, float]:
    """Adjusts the p-values of one comparison by Holm's step-down rule.

    Args:
        p_values: What was tested, a task say, to its p-value from 0 to 1. One that could not be, NaN, is no chance of
            seeing something: it stays NaN and does not count.

    Returns:
        The adjusted p-values, in the order given; comparing them with alpha keeps the chance of any false alarm below
        alpha.

    Raises:
        InputError: A p-value is not from 0 to 1.
    """
    tested = {of: p_value for of, p_value in p_values.items() if not math.isnan(p_value)}
    adjusted = dict(p_values)
    highest = 0.0
    for rank, of in enumerate(sorted(tested, key=tested.__getitem__)):
        if not 0 <= tested[of] <= 1:
            raise InputError(f"The p-value of {of} is {tested[of]}; allowed is 0 to 1.")
        highest = max(highest, min(1.0, (len(tested) - rank) * tested[of]))
        adjusted[of] = highest
    return adjusted
