"""LLaVA-1.6: a picture is its base view, then its unpadded tiles row by row, each row closed by a newline.

Source: transformers `models/llava_next` (`pack_image_features`).
Deviates from `families/llava.py`: pictures go to the processor as they are, because anyres tiles do the padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from lmms_ca_plugin.families._cells import Seen, whole
from lmms_ca_plugin.families._contract import Inputs, Kind
from lmms_ca_plugin.families._views import Features
from lmms_ca_plugin.families.llava import Llava


class LlavaNext(Llava):
    """LLaVA-1.6 (anyres)."""

    model_type = "llava_next"
    longest_ratio = math.inf  # every picture is fitted into the tiles
    picture_inputs = ("pixel_values", "image_sizes")
    padded = False  # tiles are padded already

    def picture_features(self, pictures: dict[str, Tensor]) -> list[Features]:
        """Runs the vision tower and the projector, and packs the tiles.

        Args:
            pictures: `pixel_values` (n, tiles, 3, height, width) and `image_sizes` (n, 2) for n pictures.

        Returns:
            One entry per picture.
        """
        model = self.model.model
        output = model.get_image_features(**pictures)
        features = list(getattr(output, "pooler_output", output))  # 4.57 returns the list itself
        # The kinds go through the very packing that the features went through, so the two cannot disagree.
        newline = torch.full((1,), float(Kind.NEWLINE), device=features[0].device)
        kinds: list[Tensor] = []
        for size in pictures["image_sizes"]:
            tiles = torch.full(
                (self._num_tiles(size), self.cells_per_side**2, 1), float(Kind.TILE), device=newline.device
            )
            tiles[0] = Kind.BASE
            packed, _ = model.pack_image_features(
                [tiles], size[None], model.config.vision_feature_select_strategy, image_newline=newline
            )
            kinds.append(packed[0][:, 0].to(torch.int8))  # (tokens,)
        return [Features(*pair) for pair in zip(features, kinds, strict=True)]

    def seen(self, picture: tuple[int, int]) -> Seen:
        """The base view shows the whole picture, squashed."""
        return whole(picture)

    def base_tokens(self, picture: tuple[int, int]) -> int:
        """Tokens of a picture that enters as its base view only: its cells and one newline."""
        return super().base_tokens(picture) + 1

    def base_pixels(self, pictures: dict[str, Tensor]) -> Sequence[Tensor]:
        """Takes the base views out of `Inputs.pictures`, (n, tiles, 3, height, width): (3, height, width) for each."""
        return pictures["pixel_values"][:, 0].unbind()

    def look_at_base(self, inputs: Inputs) -> list[Features]:
        """Runs the vision tower and the projector over the base views only, each closed by one newline.

        transformers' own `get_image_features` has no way to leave the tiles out, but its packing knows a picture of
        one view.
        """
        model, config = self.model.model, self.model.config
        if not inputs.pictures:
            return []
        pixels = torch.stack(list(self.base_pixels(self.moved(inputs.pictures))))  # (n, 3, height, width)
        layers, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
        hidden = model.vision_tower(pixels, output_hidden_states=True).hidden_states
        named = [layers] if isinstance(layers, int) else layers
        selected = torch.cat([hidden[layer] for layer in named], -1)  # (n, class token and t - 1, layers * width)
        if strategy == "default":
            selected = selected[:, 1:]
        views = model.multi_modal_projector(selected)[:, None]  # (n, 1, t - 1, e)
        packed, _ = model.pack_image_features(
            list(views), inputs.pictures["image_sizes"], strategy, image_newline=model.image_newline
        )
        kinds = torch.full((packed[0].shape[0],), Kind.BASE, dtype=torch.int8, device=pixels.device)
        kinds[-1] = Kind.NEWLINE
        return [Features(states, kinds) for states in packed]

    def _num_tiles(self, size: Tensor) -> int:
        config = self.model.config
        return int(image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size))


FAMILY = LlavaNext
