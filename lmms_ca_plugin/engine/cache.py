"""The key-value cache of one run: a buffer per block, allocated once, never grown by concatenation.

It has what transformers' attention calls on a cache.

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
    length: int = 0

    def write(self, rows: slice, start: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes positions from `start` on, and returns all of these rows so far: (b, g, k, d) each."""
        self.length = start + key.shape[2]
        self.keys[rows, :, start : self.length] = key
        self.values[rows, :, start : self.length] = value
        return self.keys[rows, :, : self.length], self.values[rows, :, : self.length]


class Scaling:
    """Factors on keys and values, kept until the pass that writes them."""

    def __init__(self) -> None:
        self._factors: dict[int, tuple[Tensor | None, Tensor]] = {}

    def scale(self, block: int, keys: Tensor | None, values: Tensor) -> None:
        """Has the next positions of a block scaled as they are written; the attention of that pass sees them scaled.

        Args:
            block: The block.
            keys: (b, q) factors on the keys, or None to leave them.
            values: (b, q) factors on the values.
        """
        self._factors[block] = (keys, values)

    def scaled(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Scales what is about to be written, (b, g, q, d) each, if factors are kept for it."""
        keys_by, values_by = self._factors.pop(block, (None, None))
        if keys_by is not None:
            key = key * keys_by[:, None, :, None].to(key)
        if values_by is not None:
            value = value * values_by[:, None, :, None].to(value)
        return key, value


class KeyValueCache(Scaling):
    """Keys and values of the prompt and of the new tokens.

    Args:
        capacities: Positions that each block can hold: prompt and new tokens.
    """

    def __init__(self, capacities: Sequence[int]) -> None:
        super().__init__()
        self._capacities = capacities
        self._layers: dict[int, _Layer] = {}

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends keys and values (b, g, q, d) of a block and returns all so far, (b, g, k, d) each."""
        key, value = self.scaled(layer_idx, key, value)
        layer = self._layer(layer_idx, len(key), key, value)
        return layer.write(slice(None), layer.length, key, value)

    def begin_rows(self, block: int, first: int, of: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the first positions of some of a block's rows.

        Args:
            block: The block.
            first: The first of these rows.
            of: How many rows the block has in all.
            key: (b, g, q, d).
            value: (b, g, q, d).

        Returns:
            Keys and values of these rows.
        """
        return self._layer(block, of, key, value).write(slice(first, first + len(key)), 0, key, value)

    def _layer(self, block: int, rows: int, key: Tensor, value: Tensor) -> _Layer:
        if block not in self._layers:
            empty = (rows, key.shape[1], self._capacities[block])
            self._layers[block] = _Layer(key.new_empty(*empty, key.shape[3]), value.new_empty(*empty, value.shape[3]))
        return self._layers[block]

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

    def reorder(self, rows: Tensor) -> None:
        """Takes the samples `rows` (b,) in place of what was there."""
        self._reindex(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def _reindex(self, take: Any) -> None:
        for layer in self._layers.values():
            layer.keys, layer.values = take(layer.keys), take(layer.values)
