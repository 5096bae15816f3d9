"""The key-value cache of one run: a buffer per block, allocated once, never grown by concatenation.

It has what transformers' attention calls on a cache, and what beam search does.

Axis letters: b samples, g key-value heads, s prompt positions, q new positions, k positions so far, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class _Layer:
    keys: Tensor  # (b, g, s + new tokens, d)
    values: Tensor
    length: int


class KeyValueCache:
    """Keys and values of the prompt and of the new tokens.

    Args:
        capacities: Positions that each block can hold: prompt and new tokens.
    """

    is_compileable = False

    def __init__(self, capacities: Sequence[int]) -> None:
        self._capacities = capacities
        self._layers: dict[int, _Layer] = {}
        self._factors: dict[int, tuple[Tensor | None, Tensor]] = {}

    def scale(self, block: int, keys: Tensor | None, values: Tensor) -> None:
        """Has the next positions of a block scaled as they are written; the attention of that pass sees them scaled.

        Args:
            block: The block.
            keys: (b, q) factors on the keys, or None to leave them.
            values: (b, q) factors on the values.
        """
        self._factors[block] = (keys, values)

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends keys and values (b, g, q, d) of a block and returns all so far, (b, g, k, d) each."""
        keys_by, values_by = self._factors.pop(layer_idx, (None, None))
        if keys_by is not None:
            key = key * keys_by[:, None, :, None].to(key)
        if values_by is not None:
            value = value * values_by[:, None, :, None].to(value)
        b, g, q, _d = key.shape
        if layer_idx not in self._layers:
            empty = (b, g, self._capacities[layer_idx])
            self._layers[layer_idx] = _Layer(
                key.new_empty(*empty, key.shape[3]), value.new_empty(*empty, value.shape[3]), 0
            )
        layer = self._layers[layer_idx]
        end = layer.length + q
        layer.keys[:, :, layer.length : end] = key
        layer.values[:, :, layer.length : end] = value
        layer.length = end
        return layer.keys[:, :, :end], layer.values[:, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Counts the positions that a block holds."""
        return self._layers[layer_idx].length if layer_idx in self._layers else 0

    def ahead(self, block: int, positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (b, g, k, d) as they will be with so many positions more: the buffers are there already."""
        layer = self._layers[block]
        end = layer.length + positions
        return layer.keys[:, :, :end], layer.values[:, :, :end]

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` positions, so that others can follow them."""
        for layer in self._layers.values():
            layer.length = min(layer.length, length)

    def expand(self, times: int) -> None:
        """Repeats every sample `times` times, side by side, for beams."""
        self._reindex(lambda tensor: tensor.repeat_interleave(times, 0))

    def reorder_cache(self, rows: Tensor) -> None:
        """Takes the samples `rows` (b,) in place of what was there."""
        self._reindex(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def _reindex(self, take: Any) -> None:
        for layer in self._layers.values():
            layer.keys, layer.values = take(layer.keys), take(layer.values)
