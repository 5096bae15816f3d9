"""First stage: the vision tower learns what each of its patches shows.

It takes the place of CLIP's pre-training, which needs millions of captioned pictures. Linear heads read the labels of
`views.py` off the patch features; they are thrown away afterwards.

Axis letters: b pictures, p patches of a view, e width of the tower.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lmms_ca_plugin.tiny.training.views import CLASSES, labels, some_view
from lmms_ca_plugin.tiny.world.render import render
from lmms_ca_plugin.tiny.world.scenes import scene

_KINDS = {"shapes": 3, "street": 10, "page": 4, "snap": 3}  # writing on boards takes longest to learn
_CROPPED = 0.3

Batch = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class SeeingData(Dataset[Batch]):
    """Batches of views with their labels.

    Attributes:
        image_processor: The checkpoint's own.
        batch: Views in a batch.
        patches: Patches per side.
        seed: Of scenes and views.
    """

    image_processor: Any
    batch: int
    patches: int
    seed: int = 0

    def __getitem__(self, step: int) -> Batch:
        """Pixels (b, 3, side, side), and (b, p) class numbers by name."""
        draw = Random(f"seeing:{self.seed}:{step}")
        images, found = [], []
        for _ in range(self.batch):
            kind = draw.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
            shown = scene(f"{kind}-train-{draw.getrandbits(40)}")
            rendered, view = render(shown), some_view(draw, _CROPPED)
            images.append(view.cut(rendered.image))
            found.append(labels(shown, rendered, view, self.patches))
        pixels = self.image_processor(images=images, return_tensors="pt")["pixel_values"]
        return pixels, {name: torch.stack([each[name] for each in found]) for name in CLASSES}


class Seeing(nn.Module):
    """The tower with a head per class.

    Args:
        tower: A CLIP vision model.
        width: Its width.
    """

    def __init__(self, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1 + len(classes)) for name, classes in CLASSES.items()})

    def logits(self, pixels: Tensor) -> dict[str, Tensor]:
        """Class logits (b, p, classes) by name."""
        features = self.tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]  # (b, p, e)
        return {name: head(features) for name, head in self.heads.items()}

    def loss(self, batch: Batch) -> Tensor:
        """Sum over the heads of the mean cross entropy."""
        pixels, wanted = batch
        device = next(self.parameters()).device
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted[name].flatten().to(device))
            for name, logits in self.logits(pixels.to(device)).items()
        ]
        return torch.stack(losses).sum()
