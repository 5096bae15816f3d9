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

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from lmms_ca_plugin.errors import CheckpointError, InputError, unknown
from lmms_ca_plugin.families._contract import AspectRatio, Inputs, Message, Narrow, Prompt, Question, Trunk
from lmms_ca_plugin.families._conversations import RENDERERS, check_placeholder, trained_on
from lmms_ca_plugin.families._llava_pictures import LlavaPictures

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
_HANDLED = frozenset(_SHAPE | _BLOCKS | _ROTARY | _TOKENS | _NO_EFFECT)


class Llava(LlavaPictures):
    """LLaVA-1.5 and its relatives with the same class.

    Module tree: `model.vision_tower`, `model.multi_modal_projector`,
    `model.language_model.{embed_tokens, layers, norm, rotary_emb}`, `lm_head`.
    """

    model_type = "llava"
    trunks: ClassVar = {"llama": _HANDLED, "mistral": _HANDLED, "qwen2": _HANDLED}
    towers: ClassVar = {"clip_vision_model": 1, "siglip_vision_model": 0}  # tokens that stand for no part of a picture
    longest_ratio: ClassVar[float] = 100  # of a picture's sides, where the processor resizes by the shorter one

    def __init__(
        self, model: Any, processor: Any, conversation: str | None = None, image_aspect_ratio: str | None = None
    ) -> None:
        super().__init__(model, processor, conversation, image_aspect_ratio)
        self.image_token: str = processor.image_token
        self.conversation = conversation or trained_on(processor, self.trunk)
        self.image_aspect_ratio = image_aspect_ratio or self._default_aspect_ratio()
        if self.image_aspect_ratio not in get_args(AspectRatio):
            raise unknown("image_aspect_ratio", self.image_aspect_ratio, get_args(AspectRatio))
        begin = processor.tokenizer.bos_token
        begun = begin is not None and self.render((Message("user", "?"),)).startswith(begin)
        # A conversation that writes the first token itself gets no second one.
        self._tokenizing = {"padding": True, "return_tensors": "pt", "add_special_tokens": not begun}

    def _default_aspect_ratio(self) -> str:
        as_trained = "vicuna_v1" in (self.conversation, trained_on(self.processor, self.trunk))
        return "pad" if as_trained else "processor"

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
    def fit(cls, processor: Any, config: Any, trunk: Trunk, conversation: str | None) -> None:
        """Fits a processor to its checkpoint, as its file may be of a release that knew fewer fields.

        How many tokens a picture has is decided by the tower and the config; the processor only has to count alike.
        """
        super().fit(processor, config, trunk, conversation)
        if conversation is not None and conversation not in RENDERERS:
            raise unknown("conversation", conversation, RENDERERS)
        image_token = getattr(processor, "image_token", None) or ""
        known = processor.tokenizer.convert_tokens_to_ids(image_token) if image_token else None
        if known != trunk.image_token_id:
            raise CheckpointError(
                f"The processor's image token is {image_token!r} (id {known}), but the checkpoint marks "
                f"pictures with id {trunk.image_token_id}. Use the processor that belongs to the checkpoint."
            )
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = cls.towers[config.vision_config.model_type]
        processor.vision_feature_select_strategy = getattr(
            config, "vision_feature_select_strategy", processor.vision_feature_select_strategy
        )
        check_placeholder(processor, conversation or trained_on(processor, trunk))

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

    # ---- prompts and pictures ----------------------------------------------------------------------------------------
    def render(self, conversation: Sequence[Message]) -> str:
        """Renders a conversation up to where the model's answer begins; one placeholder per picture.

        Args:
            conversation: The turns; pictures stand before their turn's text.

        Returns:
            The prompt text.
        """
        return RENDERERS[self.conversation](self.processor, conversation)

    def check(self, question: Question, conversation: Sequence[Message]) -> None:
        """Refuses what cannot be asked.

        Raises:
            InputError: An empty question, the placeholder inside a text, or a picture too thin to resize.
        """
        asked = [message for message in conversation if message.role == "user"]
        if not asked or not asked[-1].text.strip():
            raise InputError(f"{question.name}: the question is empty.")
        for message in conversation:
            if self.image_token in message.text:
                raise InputError(
                    f"{question.name}: the text contains the picture placeholder {self.image_token!r}, which would be "
                    f"taken for a picture: {message.text!r}. Remove it from the text."
                )
            if self.image_aspect_ratio == "processor":
                self._check_shapes(question.name, message.pictures)

    def _check_shapes(self, name: str, pictures: Sequence[Image.Image]) -> None:
        """Refuses pictures that a resize by their shorter side would blow up beyond memory."""
        for picture in pictures:
            width, height = picture.size
            if max(width, height) > self.longest_ratio * min(width, height):
                raise InputError(
                    f"{name}: a picture of {width} x {height} pixels is thinner than 1:{self.longest_ratio:g} and "
                    "cannot be resized by its shorter side. Use image_aspect_ratio=pad, or crop it."
                )

    def encode(self, questions: Sequence[Question]) -> Inputs:
        """Renders prompts and pictures of a batch; runs on the CPU and touches no weight."""
        texts, pictures, counts = [], [], []
        for question in questions:
            conversation = question.read()
            self.check(question, conversation)
            texts.append(self.render(conversation))
            prepared = [self.prepare_picture(p) for message in conversation for p in message.pictures]
            pictures += prepared
            counts.append(len(prepared))
        batch = dict(self.processor(text=texts, images=pictures or None, **self._tokenizing))
        return Inputs(
            input_ids=batch.pop("input_ids"),
            attention_mask=batch.pop("attention_mask").bool(),
            pictures={k: v for k, v in batch.items() if k in ("pixel_values", "image_sizes")},
            num_pictures=tuple(counts),
            questions=tuple(questions),
        )

    def write(self, questions: Sequence[Question], lengths: Sequence[Sequence[int]]) -> Inputs:
        """Renders prompts for pictures that have been looked at already.

        Args:
            questions: What is asked.
            lengths: Tokens of every picture of every question; the placeholders are expanded to them.

        Returns:
            The batch; its features are for the caller to fill in.
        """
        texts = []
        for question, tokens in zip(questions, lengths, strict=True):
            conversation = question.read()
            self.check(question, conversation)
            first, *others = self.render(conversation).split(self.image_token)
            expanded = [self.image_token * n + text for n, text in zip(tokens, others, strict=True)]
            texts.append("".join([first, *expanded]))
        batch = self.processor.tokenizer(texts, **self._tokenizing)
        return Inputs(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"].bool(),
            pictures={},
            num_pictures=tuple(map(len, lengths)),
            questions=tuple(questions),
        )

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
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # (b, s)
        return Prompt(
            input_ids=input_ids, states=states, attention_mask=attention_mask, kinds=kinds, positions=positions
        )

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


FAMILY = Llava
