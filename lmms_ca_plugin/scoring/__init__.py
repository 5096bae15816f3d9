"""Scorers: a prediction and its accepted answers in, a number from 0 to 1 out.

There is no single "standard VQA accuracy", so every score bears its scorer's name. Inputs are never altered. Nothing
here needs torch or the harness.
"""

from lmms_ca_plugin.scoring.edit_distance import anls
from lmms_ca_plugin.scoring.matching import gqa_accuracy, word_overlap
from lmms_ca_plugin.scoring.vqa import textvqa_accuracy, vizwiz_accuracy, vqa_accuracy, vqa_tool_accuracy

__all__ = [
    "vqa_accuracy",
    "vqa_tool_accuracy",
    "textvqa_accuracy",
    "vizwiz_accuracy",
    "gqa_accuracy",
    "anls",
    "word_overlap",
]
