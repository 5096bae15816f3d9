"""pytest runs a comparison as tests: `pytest --ca-baseline RUN --ca-candidate RUN`, one test per task.

Without the two options nothing is added, and nothing heavy is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lmms_ca_plugin.results.multiplicity import ALPHA

if TYPE_CHECKING:
    from lmms_ca_plugin.results.regression import TaskVerdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of `lmms-ca regress`."""
    group = parser.getgroup("lmms-ca", "compare a candidate checkpoint with a baseline")
    group.addoption("--ca-baseline", metavar="RUN", help="run folder, sample file or kept reference to compare with")
    group.addoption("--ca-candidate", metavar="RUN", help="run folder or sample file of the candidate")
    group.addoption("--ca-tolerance", type=float, default=1.0, metavar="POINTS", help="accepted loss (default 1.0)")
    group.addoption(
        "--ca-alpha", type=float, default=ALPHA, metavar="ALPHA", help="level of the test (default %(default)s)"
    )
    group.addoption("--ca-tasks", default="", metavar="TASKS", help="tasks to compare, joined by commas (default all)")


class RegressionError(Exception):
    """A task regressed; the text says by how much and where."""


class RegressionItem(pytest.Item):
    """The comparison of one task."""

    verdict: TaskVerdict

    def runtest(self) -> None:
        """Fails if the task regressed."""
        from lmms_ca_plugin.results.regression import REGRESSED
        from lmms_ca_plugin.results.reports import details, headline

        text = "\n".join([headline(self.verdict), *details(self.verdict)])
        self.add_report_section("call", "lmms-ca", text)
        if self.verdict.verdict == REGRESSED:
            raise RegressionError(text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Shows the comparison in place of a traceback."""
        if isinstance(excinfo.value, RegressionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Names the test."""
        return self.path, None, f"lmms-ca regress: {self.name}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds one test per task of the comparison."""
    baseline, candidate = config.getoption("--ca-baseline"), config.getoption("--ca-candidate")
    if not baseline and not candidate:
        return
    if not baseline or not candidate:
        raise pytest.UsageError("--ca-baseline and --ca-candidate go together: one of them is missing.")
    from lmms_ca_plugin.errors import LmmsCaError
    from lmms_ca_plugin.options import names_in
    from lmms_ca_plugin.results.regression import Rules, compare

    tasks = [task for task in names_in(config.getoption("--ca-tasks")) if task]
    try:
        rules = Rules(config.getoption("--ca-tolerance") / 100, config.getoption("--ca-alpha"))
        found = compare(baseline, candidate, rules, tasks)
    except LmmsCaError as error:
        raise pytest.UsageError(f"lmms-ca cannot compare: {error}") from error
    for verdict in found.tasks:
        item = RegressionItem.from_parent(session, name=f"regress[{verdict.task}]")
        item.verdict = verdict
        items.append(item)
