"""A tiny model as a folder, in the files that transformers itself writes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from lmms_ca_plugin.tiny.model import build_model
from lmms_ca_plugin.tiny.processor import build_processor
from lmms_ca_plugin.tiny.settings import TinySettings


def write_checkpoint(folder: str | PathLike[str], settings: TinySettings) -> Path:
    """Writes weights, configuration, tokenizer and processor of a tiny model.

    A folder is meant for the transformers release that wrote it: releases name some files differently.

    Args:
        folder: Where to; made if missing, files of the same name are overwritten.
        settings: Sizes and seed. The same settings give the same bytes.

    Returns:
        The folder, for `AutoProcessor.from_pretrained` and `LlavaForConditionalGeneration.from_pretrained` (or
        `LlavaNextForConditionalGeneration`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    build_model(settings).save_pretrained(folder)
    build_processor(settings).save_pretrained(folder)
    return folder
