"""Studies: plans of variants over tasks, and what comes of them as tables and figures.

Their names are found here without an import of any, so that a wrong one is refused at once.
"""

from __future__ import annotations

from lmms_ca_plugin.discovery import module_of


def sweep_module(name: str) -> str:
    """Finds the module of a sweep; imports nothing.

    Raises:
        OptionError: There is none of that name.
    """
    return module_of("sweep", f"{__name__}.sweeps", name)


def target_module(name: str) -> str:
    """Finds the module of a table or figure of the paper; imports nothing.

    Raises:
        OptionError: There is none of that name.
    """
    return module_of("table or figure of the paper", f"{__name__}.targets", name)
