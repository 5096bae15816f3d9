"""Small LLaVA models: with random weights, built on the spot, and the bundled checkpoint with its world and training.

This file holds the former: small LLaVA-1.5 and LLaVA-NeXT models with seeded random weights. Architecture, files and
preprocessing are those of the real checkpoints; only the numbers are small. They serve the offline suite, the tests and
the benchmarks, and their answers mean nothing. `world/` draws the scenes that the bundled checkpoint was trained on and
asks about them, `training/` trained it, `benchmarks/` writes its six sets, and `evaluation.py` measures it.

    settings = TinySettings("llava", num_blocks=6, hidden_size=32, image_size=56)
    write_checkpoint(folder, settings)              # a folder that from_pretrained loads
    model, processor = build_model(settings), build_processor(settings)   # the same two, in memory
"""

from lmms_ca_plugin.tiny.checkpoint import write_checkpoint
from lmms_ca_plugin.tiny.model import build_model
from lmms_ca_plugin.tiny.processor import build_processor
from lmms_ca_plugin.tiny.settings import MODEL_TYPES, TinySettings
from lmms_ca_plugin.tiny.tokenizer import build_tokenizer

__all__ = ["MODEL_TYPES", "TinySettings", "build_model", "build_processor", "build_tokenizer", "write_checkpoint"]
