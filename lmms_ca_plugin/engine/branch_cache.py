"""Keys and values of branches: their own from where they leave the baseline on, and the baseline's below.

Rule: below its first block a row has no keys and values of its own for the prompt; it attends to its sample's, which
the baseline's pass has cached once, by reference. There, the rows of one sample are further queries over one set of
keys: behind the prompt's keys the cache holds those of the rows' new tokens, step by step, one per row, and a mask lets
each row see its own. Nothing is copied and nothing grows.

Axis letters: r rows, p samples, m rows that share a sample's keys, s prompt positions, q positions of this pass, k
positions so far, g key-value heads, h query heads, n = h / g, d head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lmms_ca_plugin.attention import Call, Kernel
from lmms_ca_plugin.engine.cache import KeyValueCache, Scaling


@dataclass(frozen=True)
class Group:
    """Rows that share their samples' keys in some blocks, dealt out to the samples.

    Attributes:
        rows: Which rows: all from one on, because those that enter first come first.
        places: (p, m), which of them is each sample's j-th; where a sample has fewer, any: its output is not used.
        back: (r,), where each of them stands among the p * m.
        allowed: (p, 1, m, k) bool, the keys that each may see, up to the last new token.
    """

    rows: slice
    places: Tensor
    back: Tensor
    allowed: Tensor

    @classmethod
    def of(cls, start: int, samples: Sequence[int], attention_mask: Tensor, steps: int) -> Group:
        """Deals rows out.

        Args:
            start: The first of the rows.
            samples: The sample of each.
            attention_mask: (p, s) bool, True at real tokens of the prompts.
            steps: The most new tokens.
        """
        p, device = len(attention_mask), attention_mask.device
        members = [[row for row, sample in enumerate(samples) if sample == of] for of in range(p)]
        m = max(map(len, members))
        filled = [[*rows, *[0] * (m - len(rows))] for rows in members]
        stands = {row: sample * m + j for sample, rows in enumerate(members) for j, row in enumerate(rows)}
        prompts = attention_mask[:, None, None].expand(-1, -1, m, -1)  # (p, 1, m, s)
        mine = torch.eye(m, dtype=torch.bool, device=device).repeat(1, steps)  # (m, steps * m)
        return cls(
            rows=slice(start, start + len(samples)),
            places=torch.tensor(filled, device=device),
            back=torch.tensor([stands[row] for row in range(len(samples))], device=device),
            allowed=torch.cat([prompts, mine.expand(p, 1, -1, -1)], -1),
        )

    def gather(self, of_rows: Tensor) -> Tensor:
        """Puts the rows' one position side by side, sample by sample: (r, g, 1, d) -> (p, g, m, d)."""
        return of_rows[:, :, 0][self.places.to(of_rows.device)].transpose(1, 2)

    def scatter(self, of_samples: Tensor) -> Tensor:
        """Brings them back: (p, h, m, d) -> (r, 1, h, d)."""
        rows = of_samples.transpose(1, 2).flatten(0, 1)  # (p*m, h, d)
        return rows[self.back.to(rows.device)][:, None]


@dataclass(frozen=True)
class SharedCall:
    """How the rows of a group attend in one block and step; see `lmms_ca_plugin.attention.Call`.

    Attributes:
        group: The rows.
        keys: (p, g, k, d), in place of what the block hands over.
        values: (p, g, k, d).
    """

    group: Group
    keys: Tensor
    values: Tensor

    @property
    def rows(self) -> slice:
        """Which rows of the pass they are."""
        return self.group.rows

    def attend(self, kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ARG002
        """Attends for these rows: (r, h, 1, d) -> (r, 1, h, d)."""
        p, g, k, d = self.keys.shape
        h = query.shape[1]
        # Keys are repeated neither for rows nor for heads: what shares them is one long run of queries.
        grouped = self.group.gather(query).reshape(p, g, -1, d)  # (p, g, n*m, d)
        allowed = self.group.allowed[..., :k].to(query.device).repeat(1, 1, h // g, 1)  # (p, 1, n*m, k)
        output = scaled_dot_product_attention(
            grouped, self.keys, self.values, attn_mask=allowed, scale=kernel.scaling
        )  # (p, g, n*m, d)
        return self.group.scatter(output.reshape(p, h, -1, d))


class BranchCache:
    """Where the new tokens of branches go.

    Args:
        own: What rows have of their own: in each block as many rows as own keys there.
        shared: The baseline's, with room for new tokens.
        owners: For each block how many rows, the first, own keys.
        groups: The other rows, by the number of owners.
    """

    def __init__(
        self, own: KeyValueCache, shared: KeyValueCache, owners: Sequence[int], groups: Mapping[int, Group]
    ) -> None:
        self._own, self._shared, self._owners, self._groups = own, shared, owners, groups

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends one position (r, g, 1, d) of all rows; returns all so far of those that own their keys."""
        owning = self._owners[layer_idx]
        if owning < len(key):
            group = self._groups[owning]
            self._shared.update(group.gather(key[owning:]), group.gather(value[owning:]), layer_idx)
        return self._own.update(key[:owning], value[:owning], layer_idx) if owning else (key, value)

    def shared_calls(self, block: int) -> Sequence[Call]:
        """How the rows attend in a block that own no keys there, the next new token included."""
        group = self._groups.get(self._owners[block])
        if group is None:
            return ()
        return (SharedCall(group, *self._shared.ahead(block, group.places.shape[1])),)

    def of_rows(self, first: int) -> PromptCache:
        """Where the prompts of some rows go."""
        return PromptCache(self._own, self._owners, first)


class PromptCache(Scaling):
    """Where the prompts of some rows of a `BranchCache` go, in the blocks where they own keys.

    Args:
        own: What all rows have of their own.
        owners: For each block how many rows own keys.
        first: The first of these rows.
    """

    def __init__(self, own: KeyValueCache, owners: Sequence[int], first: int) -> None:
        super().__init__()
        self._own, self._owners, self._first = own, owners, first

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes the prompts' keys and values (r, g, s, d) of a block and returns them."""
        scaled = self.scaled(layer_idx, key, value)
        return self._own.begin_rows(layer_idx, self._first, self._owners[layer_idx], *scaled)
