"""The price of looking at several tasks at once.

Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

from collections.abc import Mapping

from lmms_ca_plugin.errors import InputError

ALPHA = 0.05
"""The level at which tables and figures mark a difference, and verdicts are given where no other is asked for."""


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusts the p-values of one comparison's tasks by Holm's step-down rule.

    Args:
        p_values: Task to p-value from 0 to 1.

    Returns:
        Task to adjusted p-value, in the order given; comparing it with alpha keeps the chance of any false alarm
        below alpha.

    Raises:
        InputError: A p-value is not from 0 to 1.
    """
    for task, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise InputError(f"The p-value of {task} is {p_value}; allowed is 0 to 1.")
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, task in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[task]))
        adjusted[task] = highest
    return {task: adjusted[task] for task in p_values}
