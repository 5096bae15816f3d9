"""Which rows of a leaderboard are one comparison, whose p-values are adjusted together.

Rule: it is decided by the table as it stands, not by how runs were fed into it: task by task, all at once, or with
older ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmms_ca_plugin.results.multiplicity import holm
from lmms_ca_plugin.results.runs import main_of
from lmms_ca_plugin.results.schema import DIGITS, Row, Value

_COMPARISON = ("model", "revision", "method", "method_args", "seed", "dtype", "baseline")


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """Adjusts the p-values of a table by Holm's rule, over the tasks of each comparison.

    A comparison is what one method, with its options, does to one checkpoint on all tasks, by one kind of metric:
    the main ones, the overlap, or the official ones. Each task counts once: where it was measured several times, a row
    stands for its own task, and the newest row for any other.

    Args:
        rows: Rows.

    Returns:
        The rows, with `p_holm` in place of what they held.
    """
    metrics: dict[tuple[Value, ...], list[str]] = {}
    for row in rows:
        metrics.setdefault(_task_of(row), []).append(str(row["metric"]))
    families: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        if row.get("p_value") is not None:
            role = _role(str(row["metric"]), main_of(metrics[_task_of(row)]))
            families.setdefault((*(row.get(name) for name in _COMPARISON), role), []).append(row)
    p_holm: dict[int, float] = {}
    for family in families.values():
        newest: dict[Value, Row] = {}
        for row in sorted(family, key=lambda row: str(row.get("date"))):
            newest[row["task"]] = row
        for row in family:
            # One cluster has no p-value (NaN): its difference stands in the row without one.
            tested = {
                task: round(float(str(of["p_value"])), DIGITS) for task, of in {**newest, row["task"]: row}.items()
            }
            p_holm[id(row)] = holm(tested)[row["task"]]
    return [{**row, "p_holm": p_holm.get(id(row))} for row in rows]


def _task_of(row: Row) -> tuple[Value, ...]:
    """A task of one run."""
    return tuple(row.get(name) for name in (*_COMPARISON, "task", "documents", "date"))


def _role(metric: str, main: str) -> str:
    """Which metrics are one comparison over the tasks: the main ones, the overlap, the official ones."""
    return "main" if metric == main else metric if metric == "word_overlap" else "official"
