"""All stages but the first: projector and language model learn to answer; the vision tower stays as it is.

Source of the order: LLaVA's recipe.

Axis letters: b pictures, s packed positions, e hidden size, a answer positions, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmms_ca_plugin.tiny.training.lessons import IGNORED, Lesson


class AnsweringModel(nn.Module):
    """What learns in every stage but the first.

    Args:
        model: The whole model; its tower is only used.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._whole = [model]  # in a list, so that the tower is no part of what learns
        self.projector = model.model.multi_modal_projector
        self.language_model = model.model.language_model
        self.head = model.lm_head

    def logits(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Logits (a, v) where an answer is given, and the token (a,) that should come next."""
        model = self._whole[0]
        device = self.head.weight.device
        ids, segments = lesson.input_ids.to(device), lesson.segments.to(device)
        states = self.language_model.embed_tokens(ids)  # (b, s, e)
        if lesson.pixels is not None:
            with torch.no_grad():
                seen = model.model.vision_tower(lesson.pixels.to(device), output_hidden_states=True).hidden_states
            features = self.projector(seen[model.config.vision_feature_layer][:, 1:])  # (views, tokens, e)
            placeholders = ids == model.config.image_token_id
            states = states.masked_scatter(placeholders[..., None], features.to(states))
        output = self.language_model(
            inputs_embeds=states,
            attention_mask=attends(segments)[:, None],
            position_ids=lesson.positions.to(device),
            use_cache=False,
        ).last_hidden_state  # (b, s, e)
        labels = lesson.labels.to(device)
        given = labels != IGNORED
        return self.head(output[given]), labels[given]

    def loss(self, lesson: Lesson) -> Tensor:
        """Mean cross entropy over all answer tokens."""
        logits, labels = self.logits(lesson)
        return nn.functional.cross_entropy(logits.float(), labels)


def attends(segments: Tensor) -> Tensor:
    """Says which positions each one sees: the picture, and what stands before it in its own question.

    Args:
        segments: (b, s), as in `Lesson`.

    Returns:
        (b, s, s) bool. Padding sees itself, so that no row is empty.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    return causal & (same | (segments == 0)[:, None, :])
