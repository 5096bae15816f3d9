"""The scores of a layer sweep: vanilla, and the image tokens masked at every block in turn, on the same documents.

Scores are fractions from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmms_ca_plugin.errors import InputError, unknown
from lmms_ca_plugin.results.schema import BASELINE
from lmms_ca_plugin.results.statistics import Scores

ZERO, KNOCKOUT = "zero", "knockout"
_COLUMNS = ("task", "document", "cluster", "score")
_DOCUMENT = ["task", "document"]

Flags = npt.NDArray[np.bool_]  # (documents,)


@dataclass(frozen=True)
class VariantScores:
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

    def part(self, chosen: Flags) -> VariantScores:
        """Keeps the documents where `chosen` (documents,) is true."""
        return VariantScores(self.scores[chosen], None if self.ran_away is None else self.ran_away[chosen])


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
    vanilla: VariantScores
    zero: tuple[VariantScores, ...]
    knockout: tuple[VariantScores, ...] = ()

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


def from_tables(vanilla: pd.DataFrame, masked: Iterable[tuple[str, int, pd.DataFrame]], num_blocks: int) -> LayerScores:
    """Reads a sweep from one table per variant; of each only scores and flags are kept before the next is taken.

    Args:
        vanilla: One row per document, in any order: columns `task`, `document`, `cluster` (the picture's name, the same
            in all tasks that show it), `score` from 0 to 1, and, where it is known, `ran_away`.
        masked: Mode (`zero`, `knockout`), block and such a table of every other variant, in any order.
        num_blocks: Decoder blocks of the checkpoint.

    Returns:
        The sweep; documents are sorted by task and name.

    Raises:
        InputError: A column, a block or a document of a variant is missing, or one is there twice.
        OptionError: An unknown mode.
    """
    indexed = _by_document(vanilla, BASELINE)
    documents, clusters, unmasked = indexed.index, tuple(indexed["cluster"]), _variant(indexed)
    found: dict[str, dict[int, VariantScores]] = {ZERO: {}, KNOCKOUT: {}}
    for mode, block, table in masked:
        if mode not in found:
            raise unknown("mode of a layer sweep", mode, found)
        if block not in range(num_blocks):
            raise InputError(f"The sweep has block {block} of mode={mode}. Allowed: 0 to {num_blocks - 1}.")
        name = _named(mode, block)
        if block in found[mode]:
            raise InputError(f"The sweep has {name} twice.")
        indexed = _by_document(table, name)
        _refuse_others(indexed.index, documents, name)
        found[mode][block] = _variant(indexed)
    zero, knockout = (
        _whole(mode, blocks, num_blocks) if blocks or mode == ZERO else () for mode, blocks in found.items()
    )
    return LayerScores(clusters, unmasked, zero, knockout)


def _named(mode: str, block: int) -> str:
    return f"mode={mode}, block {block}"


def _whole(mode: str, blocks: Mapping[int, VariantScores], num_blocks: int) -> tuple[VariantScores, ...]:
    missing = [block for block in range(num_blocks) if block not in blocks]
    if missing:
        raise _none_of(_named(mode, missing[0]))
    return tuple(blocks[block] for block in range(num_blocks))


def _none_of(name: str) -> InputError:
    return InputError(f"The sweep has no document of {name}. Run it too: every drop is paired with it.")


def _by_document(table: pd.DataFrame, name: str) -> pd.DataFrame:
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise InputError(f"The sweep's table of {name} lacks the columns {', '.join(missing)}.")
    if table.empty:
        raise _none_of(name)
    indexed = table.set_index(_DOCUMENT).sort_index()
    if indexed.index.has_duplicates:
        twice = _document(indexed.index[indexed.index.duplicated()][0])
        raise InputError(f"The sweep has {twice} twice for {name}.")
    return indexed


def _document(key: tuple[str, Hashable]) -> str:
    task, document = key
    return f"document {document} of task {task}"


def _refuse_others(found: pd.Index, documents: pd.Index, name: str) -> None:
    for where, some in (("missing in", documents.difference(found)), ("only in", found.difference(documents))):
        if len(some):
            raise InputError(
                f"{len(some)} documents are {where} {name}, the first is {_document(some[0])}. Every variant of a "
                "sweep answers the same documents: finish the sweep."
            )


def _variant(indexed: pd.DataFrame) -> VariantScores:
    scores = indexed["score"].to_numpy(dtype=np.float64)
    if "ran_away" not in indexed or indexed["ran_away"].isna().all():
        return VariantScores(scores)
    unknown_flags = indexed.index[indexed["ran_away"].isna()]
    if len(unknown_flags):
        raise InputError(f"Whether {_document(unknown_flags[0])} ran away is not known; of others it is. Give all.")
    return VariantScores(scores, indexed["ran_away"].to_numpy(dtype=np.bool_))
