"""The tidy tables that figures are drawn from: what must be there."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lmms_ca_plugin.errors import InputError

TEXT = frozenset({"study", "variant", "method", "task", "metric"})


def checked(table: pd.DataFrame, figure: str, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Takes the columns that a figure needs.

    Args:
        table: Any table.
        figure: The figure's name, for messages.
        columns: What it needs.
        optional: What it also draws where the table has it.

    Returns:
        A copy with these columns, numbers as numbers; an optional one that is not there is empty.

    Raises:
        InputError: A column is missing, there is no row, or a cell is no number.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"{figure}: the table lacks the columns {', '.join(missing)}. Needed: {', '.join(columns)}; given: "
            f"{', '.join(map(str, table.columns)) or 'none'}."
        )
    if table.empty:
        raise InputError(f"{figure}: the table has no row, so there is nothing to draw.")
    taken = table.reindex(columns=[*columns, *optional])
    for column in taken.columns:
        if column not in TEXT:
            try:
                taken[column] = pd.to_numeric(taken[column])
            except (ValueError, TypeError) as error:
                raise InputError(f"{figure}: the column {column} holds what is no number: {error}.") from error
    return taken


def one_metric(table: pd.DataFrame, figure: str) -> dict[str, str]:
    """Finds each task's metric, in the order of the tasks.

    Raises:
        InputError: A task has several: their scores do not belong on one axis.
    """
    metrics = {str(task): list(dict.fromkeys(rows["metric"])) for task, rows in table.groupby("task", sort=False)}
    for task, names in metrics.items():
        if len(names) > 1:
            raise InputError(f"{figure}: task {task} has the metrics {', '.join(names)}. Keep the rows of one of them.")
    return {task: str(names[0]) for task, names in metrics.items()}


def numbers(table: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """The smallest and the largest n of every task; tasks without any are left out."""
    known = table.dropna(subset=["n"])
    return {str(task): (int(rows.min()), int(rows.max())) for task, rows in known.groupby("task", sort=False)["n"]}
