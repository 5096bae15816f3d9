"""A saved checkpoint that the oldest supported transformers reads as well as the newest.

transformers 5 writes three facts in a way that 4.57 does not know: the tokenizer's class, the image token's place among
the special tokens, and the vision weights' names. Both read what 4.57 writes, so that is what goes into the folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from lmms_ca_plugin.tiny.tokenizer import IMAGE

_TOKENIZER = "tokenizer_config.json"
_WEIGHTS = "model.safetensors"
_TOWER, _OLD_TOWER = "vision_tower.", "vision_tower.vision_model."


def make_portable(folder: Path) -> None:
    """Rewrites what `save_pretrained` of a `LlavaForConditionalGeneration` and its processor left in a folder.

    Args:
        folder: With a tokenizer configuration and one file of weights.
    """
    facts = json.loads((folder / _TOKENIZER).read_text(encoding="utf-8"))
    facts.pop("backend", None)
    facts |= {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {"image_token": IMAGE}}
    (folder / _TOKENIZER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    weights = {_old_name(name): value for name, value in load_file(folder / _WEIGHTS).items()}
    save_file(weights, folder / _WEIGHTS, {"format": "pt"})


def _old_name(name: str) -> str:
    if not name.startswith(_TOWER) or name.startswith(_OLD_TOWER):
        return name
    return _OLD_TOWER + name.removeprefix(_TOWER)
