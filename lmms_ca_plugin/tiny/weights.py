"""Random weights under which attention-based methods have something to do.

Fan-in scaling keeps every block's contribution at about the size of what enters it, so hidden states grow with the
square root of depth and nothing overflows. Three choices go beyond it:
queries and keys of the trunk are scaled up (`query_key_gain`), so that a token looks at few image tokens and each block
at others; position embeddings of the vision tower are small, so that image features say what is on the picture; output
rows of tokens that are no text are zero, so that answers are made of readable pieces.
"""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmms_ca_plugin.tiny.settings import TinySettings
from lmms_ca_plugin.tiny.tokenizer import BOS, BYTES, IMAGE, PAD, UNK

_POSITION_STD = 0.1


@torch.no_grad()
def fill(model: PreTrainedModel, settings: TinySettings, tokenizer: PreTrainedTokenizerFast) -> None:
    """Overwrites every parameter of a tiny model.

    Args:
        model: A model as `build_model` constructs it.
        settings: Its seed and gains.
        tokenizer: Names the output rows that belong to no text.
    """
    norms = {id(module.weight) for module in model.modules() if _is_norm(module)}
    for name, parameter in model.named_parameters():
        if id(parameter) in norms:
            parameter.fill_(1.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.normal_(0.0, _std(name, parameter, settings), generator=_stream(settings.seed, name))
    output = model.get_output_embeddings().weight  # (vocabulary, hidden)
    output[tokenizer.convert_tokens_to_ids([UNK, BOS, IMAGE, PAD, *BYTES])] = 0.0
    output[tokenizer.eos_token_id] *= settings.eos_gain


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and hasattr(module, "weight")


def _stream(seed: int, name: str) -> torch.Generator:
    """A generator of its own per tensor: neither the order nor the number of tensors matters."""
    return torch.Generator().manual_seed(int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1)


def _std(name: str, parameter: torch.Tensor, settings: TinySettings) -> float:
    if "position_embedding" in name:
        return _POSITION_STD
    if "embed_tokens" in name or "class_embedding" in name or "image_newline" in name:
        return 1.0
    fan_in = parameter[0].numel()  # linear (out, in); patch convolution (out, 3, patch, patch)
    trunk_attention = "language_model" in name and ("q_proj" in name or "k_proj" in name)
    gain = settings.query_key_gain if trunk_attention else 1.0
    return float(gain / fan_in**0.5)
