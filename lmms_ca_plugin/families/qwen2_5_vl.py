"""Qwen2.5-VL: Qwen2-VL with another vision tower, which attends in windows.

Source: transformers `models/qwen2_5_vl`; pictures have the positions that they have in Qwen2-VL, videos have others.
"""

from typing import ClassVar

from lmms_ca_plugin.families._decoder import HANDLED
from lmms_ca_plugin.families.qwen2_vl import Qwen2VL


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL."""

    model_type = "qwen2_5_vl"
    trunks: ClassVar = {"qwen2_5_vl_text": HANDLED, "qwen2_5_vl": HANDLED}


FAMILY = Qwen25VL
