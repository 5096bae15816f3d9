"""The pass that the families share: a decoder of LLaMA's form, with features in the placeholders' places.

Source: transformers `models/llava`, `models/llava_next`, `models/qwen2_vl`, whose module trees agree in this.
Rule: a family that subclasses this says what its vision side makes of pictures, and where positions do not simply
count, which they are.

Axis letters: b samples, s prompt positions, q positions of this pass, e hidden size, d head size, v vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.families._chat import Chat
from lmms_ca_plugin.families._contract import Inputs, Narrow, Prompt
from lmms_ca_plugin.families._views import Features

_SHAPE = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
_BLOCKS = {
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "attention_bias",
    "attention_dropout",
    "mlp_bias",
}
_ROTARY = {"max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"}
_TOKENS = {"pad_token_id", "bos_token_id", "eos_token_id"}
_NO_EFFECT = {
    "initializer_range",
    "use_cache",
    "pretraining_tp",
    "tie_word_embeddings",
    "max_window_layers",
    "layer_types",
}
HANDLED = frozenset(_SHAPE | _BLOCKS | _ROTARY | _TOKENS | _NO_EFFECT)  # config attributes that only the blocks read


class Decoder(Chat):
    """Blocks, norm and embedding under `model.language_model`, the head beside it.

    Module tree: `model.language_model.{embed_tokens, layers, norm, rotary_emb}`, `lm_head`.
    """

    # ---- paths -------------------------------------------------------------------------------------------------------
    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        layers: nn.ModuleList = self.model.model.language_model.layers
        return layers

    @property
    def text_config(self) -> Any:
        """The config object that the blocks' attention modules hold."""
        return self.model.model.language_model.config

    def input_norm(self, block: int) -> nn.Module:
        """The RMSNorm between the residual stream and `block`'s attention."""
        block_module: Any = self.blocks[block]
        norm: nn.Module = block_module.input_layernorm
        return norm

    def narrow(self, block: int) -> Narrow:
        """The modules of `block`, which are alike in LLaMA, Mistral and Qwen2."""
        module: Any = self.blocks[block]
        return Narrow(module.self_attn.q_proj, module.self_attn.o_proj, module.post_attention_layernorm)

    # ---- features ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def picture_features(self, pictures: dict[str, Tensor]) -> list[Features]:
        """Runs the vision tower and the projector over pictures that are where the model is: one entry each."""

    def look(self, inputs: Inputs) -> list[Features]:
        """Runs the vision tower and the projector over all pictures of a batch.

        Args:
            inputs: The batch; its pictures are moved to the model's device and type.

        Returns:
            One entry per picture, in order; none without pictures.
        """
        return self.picture_features(self.moved(inputs.pictures)) if inputs.pictures else []

    def look_at_base(self, inputs: Inputs) -> list[Features]:
        """Runs them over the base views only; a picture has no other view here."""
        return self.look(inputs)

    def moved(self, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Brings pixels to the model's device and type; sizes stay where they are read."""
        device: Any = self.model.model.language_model.embed_tokens.weight.device
        return {k: v.to(device, self.model.dtype) if v.is_floating_point() else v for k, v in pictures.items()}

    # ---- the pass ----------------------------------------------------------------------------------------------------
    def embed(self, inputs: Inputs) -> Prompt:
        """Runs the vision side, unless its features are there already, and merges them into the token embeddings.

        Raises:
            InputError: A prompt has other than as many placeholders as its pictures have tokens.
        """
        features = self.look(inputs) if inputs.features is None else inputs.features
        device = self.model.model.language_model.embed_tokens.weight.device
        input_ids, attention_mask = inputs.input_ids.to(device), inputs.attention_mask.to(device)
        states = self.embed_tokens(input_ids)  # (b, s, e)
        placeholders = input_ids == self.trunk.image_token_id  # (b, s)
        kinds = torch.zeros_like(input_ids, dtype=torch.int8)  # (b, s)
        if any(inputs.num_pictures):
            self._check_counts(inputs, [len(f.states) for f in features])
            states = states.masked_scatter(placeholders[..., None], torch.cat([f.states for f in features]).to(states))
            kinds = kinds.masked_scatter(placeholders, torch.cat([f.kinds for f in features]).to(kinds))
        return Prompt(
            input_ids=input_ids,
            states=states,
            attention_mask=attention_mask,
            kinds=kinds,
            positions=self.positions(attention_mask, placeholders, features),
        )

    def positions(self, attention_mask: Tensor, placeholders: Tensor, features: Sequence[Features]) -> Tensor:  # noqa: ARG002
        """Counts real tokens from 0.

        Args:
            attention_mask: (b, s) bool, True at real tokens.
            placeholders: (b, s) bool, True at image tokens.
            features: All pictures of the batch, in order.

        Returns:
            (b, s), or whatever else `block_arguments` takes: (b, s, ...).
        """
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # (b, s)

    def _check_counts(self, inputs: Inputs, lengths: list[int]) -> None:
        first = 0
        placeholders = inputs.input_ids == self.trunk.image_token_id  # (b, s)
        for row, (question, count) in enumerate(zip(inputs.questions, inputs.num_pictures, strict=True)):
            features = sum(lengths[first : first + count])
            tokens = int(placeholders[row].sum())
            first += count
            if tokens != features:
                raise InputError(
                    f"{question.name}: the prompt has {tokens} image tokens, but the vision tower gives {features} "
                    f"features for {count} picture(s). The processor's patch_size, size or "
                    "vision_feature_select_strategy does not fit the checkpoint."
                )

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Looks new tokens up: (b, q) -> (b, q, e)."""
        states: Tensor = self.model.model.language_model.embed_tokens(token_ids)
        return states

    def block_arguments(self, states: Tensor, positions: Tensor) -> dict[str, Any]:
        """Rotary embeddings of `positions` (b, q): cosine and sine, (b, q, d) each."""
        return {
            "position_embeddings": self.model.model.language_model.rotary_emb(states, positions),
            "position_ids": positions,
        }

    def norm(self, states: Tensor) -> Tensor:
        """The final RMSNorm: (..., e) -> (..., e)."""
        normed: Tensor = self.model.model.language_model.norm(states)
        return normed

    def head(self, states: Tensor) -> Tensor:
        """The head alone: (..., e) -> (..., v)."""
        logits: Tensor = self.model.lm_head(states)
        return logits
