"""How the bare `lmms-eval --tasks ca` finds this plugin's tasks.

lmms-eval 0.7.3 has entry points for models and none for tasks, so `install`, called while our model entry point loads,
adds our folder to the paths that its `TaskManager` searches. Nothing else of the harness is changed, and where the
harness no longer looks as expected nothing is changed at all and a warning says what to type instead.

`LMMS_CA_NO_TASKS=1` turns it off.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from pathlib import Path
from typing import Any

OPT_OUT = "LMMS_CA_NO_TASKS"
_PACKAGE = Path(__file__).parents[1]
_ALREADY = "_lmms_ca_tasks"


def task_folder() -> Path | None:
    """Finds the folder of the YAML files.

    Returns:
        The one that the wheel carries, or that of the checkout; None where there is neither.
    """
    places = (_PACKAGE / "_tasks", _PACKAGE.parent / "tasks")
    return next((place for place in places if (place / "ca").is_dir()), None)


def install() -> None:
    """Makes the harness's task manager search our folder too; does nothing a second time.

    Only during an evaluation: `lmms-eval models` loads entry points as well, and importing the harness's tasks for it
    would turn 0.3 s into 12 s.
    """
    if os.environ.get(OPT_OUT) or "lmms_eval.evaluator" not in sys.modules:
        return
    folder = task_folder()
    if folder is None:
        return _warn("its tasks folder is missing from this installation; reinstall lmms-ca", None)
    try:
        from lmms_eval.tasks import TaskManager

        original = TaskManager.initialize_tasks
        parameters = list(inspect.signature(original).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return _warn(f"lmms-eval's TaskManager is not as expected ({error})", folder)
    if getattr(original, _ALREADY, False):
        return None
    if parameters[:2] != ["self", "include_path"]:
        return _warn(f"lmms-eval's TaskManager.initialize_tasks takes {', '.join(parameters)}", folder)

    @functools.wraps(original)
    def initialize_tasks(self: Any, include_path: str | list[str] | None = None, *args: Any, **kwargs: Any) -> Any:
        given = [include_path] if isinstance(include_path, str) else list(include_path or [])
        return original(self, [*given, str(folder)], *args, **kwargs)

    setattr(initialize_tasks, _ALREADY, True)
    TaskManager.initialize_tasks = initialize_tasks
    return None


def _warn(why: str, folder: Path | None) -> None:
    """Says loudly that the tasks will not be found, and how to have them all the same."""
    instead = f" Type --include_path {folder} to have them all the same." if folder else ""
    warnings.warn(f"lmms-ca: the tasks ca_* and mini_* will not be found: {why}.{instead}", stacklevel=3)
