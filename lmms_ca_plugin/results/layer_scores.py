"""The scores of a layer sweep: vanilla, and the image tokens masked at every block in turn, on the same documents.

Scores are fractions from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmms_ca_plugin.errors import InputError, unknown
from lmms_ca_plugin.results.schema import BASELINE
from lmms_ca_plugin.results.statistics import Scores

VANILLA, ZERO, KNOCKOUT = BASELINE, "zero", "knockout"
_COLUMNS = ("mode", "block", "task", "document", "cluster", "score")
_DOCUMENT = ["task", "document"]

Flags = npt.NDArray[np.bool_]  # (documents,)


@dataclass(frozen=True)
class Variant:
    """What one run over the documents gave.

    Attributes:
        scores: (documents,) from 0 to 1.
        ran_away: (documents,) whether the answer hit the token limit; None where that is not known.
    """

    scores: Scores
    ran_away: Flags | None = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or not self.scores.size:
            raise InputError(f"Scores of shape {self.scores.shape} were given; a non-empty list of numbers is needed.")
        wrong = np.flatnonzero(~((self.scores >= 0) & (self.scores <= 1)))  # NaN is neither
        if wrong.size:
            raise InputError(
                f"The score at position {wrong[0]} is {self.scores[wrong[0]]}; allowed is 0 to 1. A document that "
                "failed has no score: run it again."
            )
        if self.ran_away is not None and self.ran_away.shape != self.scores.shape:
            raise InputError(f"{self.ran_away.size} flags of runaway answers but {self.scores.size} scores were given.")

    def part(self, chosen: Flags) -> Variant:
        """Keeps the documents where `chosen` (documents,) is true."""
        return Variant(self.scores[chosen], None if self.ran_away is None else self.ran_away[chosen])


@dataclass(frozen=True)
class LayerScores:
    """A whole sweep; every variant has the same documents in the same order.

    Attributes:
        clusters: (documents,) the picture of each.
        vanilla: Nothing masked.
        zero: Layermask at `mode=zero`, one variant per block of the trunk, first to last.
        knockout: The same at `mode=knockout`; empty where it was not run.
    """

    clusters: tuple[str, ...]
    vanilla: Variant
    zero: tuple[Variant, ...]
    knockout: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        if self.knockout and len(self.knockout) != len(self.zero):
            raise InputError(f"mode=zero has {len(self.zero)} blocks, mode=knockout {len(self.knockout)}.")
        for variant in (self.vanilla, *self.zero, *self.knockout):
            if variant.scores.size != len(self.clusters):
                raise InputError(f"{variant.scores.size} scores but {len(self.clusters)} clusters were given.")

    def part(self, chosen: Flags) -> LayerScores:
        """Keeps the documents where `chosen` (documents,) is true."""
        return LayerScores(
            tuple(cluster for cluster, keep in zip(self.clusters, chosen, strict=True) if keep),
            self.vanilla.part(chosen),
            tuple(variant.part(chosen) for variant in self.zero),
            tuple(variant.part(chosen) for variant in self.knockout),
        )


def from_table(table: pd.DataFrame, num_blocks: int) -> LayerScores:
    """Reads a sweep from one row per document and variant, in any order.

    Args:
        table: Columns `mode` (`vanilla`, `zero`, `knockout`), `block` (ignored for vanilla), `task`, `document`,
            `cluster` (pictures of two tasks are two clusters), `score` from 0 to 1, and, where it is known, `ran_away`.
        num_blocks: Decoder blocks of the checkpoint.

    Returns:
        The sweep; documents are sorted by task and name.

    Raises:
        InputError: A column, a block or a document of a variant is missing, or one is there twice.
        OptionError: An unknown mode.
    """
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise InputError(f"The sweep's table lacks the columns {', '.join(missing)}.")
    for mode in table["mode"].unique():
        if mode not in (VANILLA, ZERO, KNOCKOUT):
            raise unknown("mode of a layer sweep", mode, (VANILLA, ZERO, KNOCKOUT))
    vanilla = _by_document(table[table["mode"] == VANILLA], VANILLA)
    documents = vanilla.index
    tasks = documents.get_level_values("task")
    clusters = tuple(f"{task}/{cluster}" for task, cluster in zip(tasks, vanilla["cluster"], strict=True))
    modes = {mode: table[table["mode"] == mode] for mode in (ZERO, KNOCKOUT)}
    zero, knockout = (
        tuple(_variants(rows, mode, num_blocks, documents)) if mode == ZERO or len(rows) else ()
        for mode, rows in modes.items()
    )
    return LayerScores(clusters, _variant(vanilla), zero, knockout)


def _by_document(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    if rows.empty:
        raise InputError(f"The sweep has no document of {name}. Run it too: every drop is paired with it.")
    indexed = rows.set_index(_DOCUMENT).sort_index()
    if indexed.index.has_duplicates:
        twice = _named(indexed.index[indexed.index.duplicated()][0])
        raise InputError(f"The sweep has {twice} twice for {name}.")
    return indexed


def _named(key: tuple[str, Hashable]) -> str:
    task, document = key
    return f"document {document} of task {task}"


def _variants(rows: pd.DataFrame, mode: str, num_blocks: int, documents: pd.Index) -> Iterator[Variant]:
    strangers = sorted(set(rows["block"]) - set(range(num_blocks)))
    if strangers:
        raise InputError(f"The sweep has block {strangers[0]} of mode={mode}. Allowed: 0 to {num_blocks - 1}.")
    for block in range(num_blocks):
        name = f"mode={mode}, block {block}"
        indexed = _by_document(rows[rows["block"] == block], name)
        _refuse_others(indexed.index, documents, name)
        yield _variant(indexed)


def _refuse_others(found: pd.Index, documents: pd.Index, name: str) -> None:
    for where, some in (("missing in", documents.difference(found)), ("only in", found.difference(documents))):
        if len(some):
            raise InputError(
                f"{len(some)} documents are {where} {name}, the first is {_named(some[0])}. Every variant of a sweep "
                "answers the same documents: finish the sweep."
            )


def _variant(indexed: pd.DataFrame) -> Variant:
    scores = indexed["score"].to_numpy(dtype=np.float64)
    if "ran_away" not in indexed or indexed["ran_away"].isna().all():
        return Variant(scores)
    unknown_flags = indexed.index[indexed["ran_away"].isna()]
    if len(unknown_flags):
        raise InputError(f"Whether {_named(unknown_flags[0])} ran away is not known; of others it is. Give all.")
    return Variant(scores, indexed["ran_away"].to_numpy(dtype=np.bool_))
