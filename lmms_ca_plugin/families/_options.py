"""How prompts and pictures are prepared, as it is asked for and as it is settled; part of the contract of families."""

from __future__ import annotations

from dataclasses import dataclass

from lmms_ca_plugin.families._conversations import Conversation
from lmms_ca_plugin.families._inputs import AspectRatio


@dataclass(frozen=True)
class InputOptions:
    """How prompts and pictures are prepared; None is the family's default.

    Attributes:
        conversation: `vicuna_v1` or `chatml_direct` (each with its system sentence), or the processor's own chat
            template, the only one for Qwen-VL.
        image_aspect_ratio: `pad` to a square with the mean colour (not for Qwen-VL), or leave it to the processor.
        max_pixels: Larger pictures are made smaller, for Qwen-VL alone; None is the processor's own bound.
    """

    conversation: Conversation | None = None
    image_aspect_ratio: AspectRatio | None = None
    max_pixels: int | None = None


AS_TRAINED = InputOptions()
