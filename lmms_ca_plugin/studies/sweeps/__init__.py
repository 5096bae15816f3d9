"""Sweeps, one file each; the file's name is the sweep's, its docstring what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

import pandas as pd
from matplotlib.figure import Figure

from lmms_ca_plugin.families._contract import Trunk
from lmms_ca_plugin.harness.study import Finished
from lmms_ca_plugin.methods._variant import Variant
from lmms_ca_plugin.studies import sweep_module
from lmms_ca_plugin.studies.asked import Asked


class Sweep(Protocol):
    """What a file in this folder holds."""

    def variants(self, asked: Asked, trunk: Trunk) -> Sequence[Variant]:
        """Lists what is compared on a trunk; where there is a `vanilla`, differences are to it."""

    def figures(self, finished: Finished, table: pd.DataFrame) -> Mapping[str, Figure]:
        """Draws the study, by file name without ending."""


def load_sweep(name: str) -> Sweep:
    """Finds a sweep.

    Raises:
        OptionError: There is none of that name.
    """
    return cast(Sweep, import_module(sweep_module(name)))
