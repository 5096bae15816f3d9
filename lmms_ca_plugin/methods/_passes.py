"""What a method that makes its own inputs may ask of the model before the answering pass, and what it hands back.

Axis letters: b samples, s prompt positions, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lmms_ca_plugin.families._contract import Family, Inputs
from lmms_ca_plugin.families._views import Features


@dataclass(frozen=True)
class Prepared:
    """What a method gives the answering pass in place of the questions as they were asked.

    Attributes:
        inputs: The batch.
        log: One record per sample for the trace.
    """

    inputs: Inputs
    log: tuple[dict[str, Any], ...]


class Passes(Protocol):
    """What a method's `prepare` may ask of the model; the engine is the one who calls it."""

    @property
    def family(self) -> Family:
        """The loaded checkpoint."""

    def check(self, inputs: Inputs) -> None:
        """Refuses a batch whose prompts leave no room for the answer.

        Raises:
            InputError: A prompt with the new tokens is longer than the trunk has positions.
        """

    def look(self, inputs: Inputs) -> list[Features]:
        """Runs the vision side over all pictures of a batch."""

    def look_at_base(self, inputs: Inputs) -> list[Features]:
        """Runs the vision side over the base views of a batch."""

    def attention(self, prompts: Sequence[Inputs], block: int) -> list[Tensor]:
        """Reads the last prompt token's attention at one block; no pass goes further than that block.

        Args:
            prompts: Batches that ask different things of the same pictures, with their features.
            block: The 0-based decoder block.

        Returns:
            For every batch (b, s): post-softmax weights, mean over heads; 0 at padding.
        """

    def attention_gradient(self, inputs: Inputs, block: int) -> tuple[Tensor, Tensor]:
        """Asks how the likeliest first token depends on the last prompt token's attention at one block.

        Args:
            inputs: The batch, with its features.
            block: The 0-based decoder block.

        Returns:
            The post-softmax weights (b, h, s) and the gradient (b, h, s) of that token's log probability by them.
        """

    def pixel_gradients(self, pictures: Inputs, prompts: Sequence[Inputs]) -> tuple[list[Tensor], list[Features]]:
        """Asks how the likeliest first token depends on the pixels; the vision tower runs forward once.

        Args:
            pictures: A batch with its pictures.
            prompts: Batches that ask different things of these pictures.

        Returns:
            For every batch the gradient of that token's log probability by `pixel_values`, in their shape; and the
            pictures' features.
        """
