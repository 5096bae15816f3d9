"""LLaVA-1.5: `LlavaForConditionalGeneration`, one run of base-view tokens per picture.

Source: transformers `models/llava`; padding of the original from haotian-liu/LLaVA `llava/mm_utils.py`
(`expand2square`), restated from its behaviour.
Deviates from the processor's defaults where a checkpoint speaks Vicuna, as LLaVA-1.5 does: pictures are padded to a
square with the mean colour and the prompt carries the Vicuna v1 system sentence, because the checkpoints were trained
that way. The processor's own centre crop cuts a quarter off a 4:3 photograph, and its template has no system sentence.
`image_aspect_ratio=processor` and `conversation=processor` bring them back. Other checkpoints of the type get their
processor's own way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from lmms_ca_plugin.errors import CheckpointError
from lmms_ca_plugin.families._contract import InputOptions, Trunk
from lmms_ca_plugin.families._conversations import trained_on
from lmms_ca_plugin.families._decoder import HANDLED
from lmms_ca_plugin.families._llava_pictures import LlavaPictures


class Llava(LlavaPictures):
    """LLaVA-1.5 and its relatives with the same class.

    Module tree: `model.vision_tower`, `model.multi_modal_projector`,
    `model.language_model.{embed_tokens, layers, norm, rotary_emb}`, `lm_head`.
    """

    model_type = "llava"
    trunks: ClassVar = {"llama": HANDLED, "mistral": HANDLED, "qwen2": HANDLED}
    towers: ClassVar = {"clip_vision_model": 1, "siglip_vision_model": 0}  # tokens that stand for no part of a picture
    longest_ratio: ClassVar[float] = 100  # beyond, a resize by the shorter side takes gigabytes
    picture_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    padded: ClassVar[bool] = True  # whether those that speak Vicuna were trained on padded pictures

    @classmethod
    def describe(cls, config: Any) -> Trunk:
        """Reads the trunk's facts; refuses vision towers whose pictures are prepared in other ways as well."""
        tower = config.vision_config.model_type
        if tower not in cls.towers:
            raise CheckpointError(
                f"Vision tower type '{tower}' inside '{cls.model_type}' is not supported. Allowed: "
                f"{', '.join(sorted(cls.towers))}."
            )
        return super().describe(config)

    @classmethod
    def fit(cls, processor: Any, config: Any, trunk: Trunk, inputs: InputOptions) -> InputOptions:
        """Fits a processor to its checkpoint, as its file may be of a release that knew fewer fields.

        How many tokens a picture has is decided by the tower and the config; the processor only has to count alike.
        """
        settled = super().fit(processor, config, trunk, inputs)
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = cls.towers[config.vision_config.model_type]
        processor.vision_feature_select_strategy = getattr(
            config, "vision_feature_select_strategy", processor.vision_feature_select_strategy
        )
        if inputs.image_aspect_ratio is not None or not cls.padded:
            return settled
        speaks_vicuna = settled.conversation == "vicuna_v1" or trained_on(processor, trunk) == "vicuna_v1"
        return replace(settled, image_aspect_ratio="pad") if speaks_vicuna else settled


FAMILY = Llava
