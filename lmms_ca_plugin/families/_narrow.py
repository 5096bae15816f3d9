"""The modules that let a block do for the last position alone what nobody wants of the others.

Axis letters: b rows, s positions, e hidden size, h heads, d head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Narrow:
    """A block of the form `x = x + output(attention(norm(x))); x + mlp(post_norm(x))`, by its modules.

    Attributes:
        queries: Makes the queries out of the attention's input.
        output: The attention's output projection.
        post_norm: The norm between the residual stream and the MLP.
    """

    queries: nn.Module
    output: nn.Module
    post_norm: nn.Module

    @contextmanager
    def attached(self, positions: int) -> Iterator[None]:
        """Has the block compute keys and values at all `positions`, and everything else at the last one alone.

        What the block puts out, (b, s, e), is right at the last position and meaningless before it. The last one's
        queries stand in every position's place, and so does its attention; the output projection takes it alone, and
        the (b, 1, e) that comes out is added to the residual stream at every position; of that sum the norm takes the
        last position alone, which is the right one, and what the MLP makes of it is added to every position again.
        """

        def spread(_module: nn.Module, _inputs: Any, queries: Tensor) -> Tensor:
            return queries.expand(-1, positions, -1)  # (b, 1, h*d) -> (b, s, h*d)

        handles = [module.register_forward_pre_hook(_last) for module in (self.queries, self.output, self.post_norm)]
        handles.append(self.queries.register_forward_hook(spread))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _last(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    states: Tensor = inputs[0]
    return (states[:, -1:],)  # (b, s, e) -> (b, 1, e)
