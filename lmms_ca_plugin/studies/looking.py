"""Where a checkpoint looks in one picture: attention by block, over the base view's cells, and where these lie.

Rule: attention is what the engine reads for a plan that reads these blocks and edits nothing; what a method decided
comes from its own record. Tiles and newlines have no place on the base view: they are left out, and counted.

Axis letters: t image tokens of the prompt, r rows and c columns of the base view's cells, x and y pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.families._cells import Cells
from lmms_ca_plugin.families._contract import Family, Kind, Question
from lmms_ca_plugin.methods._contract import Plan, Read
from lmms_ca_plugin.methods._distances import distribution
from lmms_ca_plugin.methods._maps import base_map


@dataclass(frozen=True)
class Looking:
    """What was read of one picture.

    Attributes:
        family: The loaded checkpoint.
        question: What was asked.
        view: (y, x, 3), the base view as the vision tower saw it, 0 to 1.
        cells: Where its cells lie on the picture.
        kinds: (t,), what each image token is.
        attention: Per block (t,), the last prompt token's attention over the image tokens, mean over heads, sum 1.
    """

    family: Family
    question: Question
    view: np.ndarray
    cells: Cells
    kinds: Tensor
    attention: dict[int, Tensor]

    @property
    def tokens(self) -> int:
        """Image tokens of the prompt."""
        return len(self.kinds)

    @property
    def base_tokens(self) -> int:
        """Those that are cells of the base view."""
        return int((self.kinds == Kind.BASE).sum())

    def on_cells(self, values: Tensor | Sequence[float]) -> np.ndarray:
        """Lays one value per image token onto the base view's cells: (t,) -> (r, c)."""
        placed = base_map(torch.as_tensor(values), self.kinds, self.cells.grid, self.question.name)
        return placed.double().numpy()

    def base_share(self, block: int) -> float:
        """How much of a block's attention over the picture lies on the base view, 0 to 1."""
        return float(self.attention[block][self.kinds == Kind.BASE].sum())


def look(family: Family, question: Question, blocks: Sequence[int]) -> Looking:
    """Passes a question through the model and reads attention at some blocks.

    Args:
        family: The loaded checkpoint.
        question: With one picture.
        blocks: The 0-based decoder blocks.

    Returns:
        What was read.

    Raises:
        OptionError: The family does not say which pixels a view shows.
    """
    (picture,) = [picture for message in question.read() for picture in message.pictures]
    cells = family.cells(picture.size)
    inputs = family.encode([question])
    with torch.inference_mode():
        prompt = family.embed(inputs)
    run = Run(family, Plan(reads=tuple(map(Read, blocks))), prompt, new_tokens=1)
    with run.attached():
        run.prefill()
    image = prompt.is_image[0]  # (s,)
    return Looking(
        family,
        question,
        _as_colours(family, family.base_pixels(inputs.pictures)[0]),
        cells,
        prompt.kinds[0, image].cpu(),
        {block: distribution(run.reads[Read(block)][0, image]).cpu() for block in blocks},
    )


def _as_colours(family: Family, pixels: Tensor) -> np.ndarray:
    """Undoes the processor's normalisation: (3, y, x) -> (y, x, 3) in 0 to 1."""
    processor: Any = family.processor.image_processor
    if processor.do_normalize:
        mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    colours: np.ndarray = pixels.clamp(0, 1).permute(1, 2, 0).double().numpy()
    return colours
