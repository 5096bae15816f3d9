"""Beam search: transformers' own, fed by a run, so that a method reads and edits as it does in greedy decoding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from lmms_ca_plugin.engine.generation import Generation, NewTokens
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.families._spelling import CACHE


class _Reordered(DynamicCache):  # type: ignore[misc]
    """The cache that `generate` sees: it holds nothing, and reorders the run's."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._run.cache.reorder(beam_idx)


class _Steps(nn.Module, GenerationMixin):  # type: ignore[misc]
    """What `generate` takes for a model: its forward is one pass of the run."""

    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, run: Run, num_beams: int, config: Any) -> None:
        super().__init__()
        self.run, self.num_beams = run, num_beams
        self.config = config
        self.generation_config = GenerationConfig()
        self.device = run.prompt.states.device
        self.dtype = run.prompt.states.dtype
        self._begun = False

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        # `generate` refuses arguments that are not named here; mask and cache are the run's own already.
        del attention_mask, past_key_values, cache, kwargs
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, return_dict: bool = True) -> CausalLMOutputWithPast:  # noqa: ARG002
        if self._begun:
            # The search has reordered its beams since the last pass.
            self.run.generated = input_ids[:, self.run.prompt.input_ids.shape[1] : -1]  # (b * beams, n)
            logits = self.run.step(input_ids[:, -1])  # (b * beams, v)
        else:
            # The prompt passes once; its cache is repeated, not its computation.
            logits = self.run.prefill().repeat_interleave(self.num_beams, 0)
            self.run.expand(self.num_beams)
            self._begun = True
        return CausalLMOutputWithPast(logits=logits[:, None])


def search(run: Run, generation: Generation, end_tokens: frozenset[int], pad_token: int) -> list[NewTokens]:
    """Generates by beam search, with transformers' defaults for everything but the number of beams.

    Args:
        run: The batch, attached and before its prefill.
        generation: The settings, the same for all samples.
        end_tokens: Tokens that end an answer.
        pad_token: Fills shorter answers.

    Returns:
        The new tokens of every sample's best beam.
    """
    steps = _Steps(run, generation.num_beams, run.family.text_config)
    settings = GenerationConfig(
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(end_tokens),
        pad_token_id=pad_token,
        repetition_penalty=run.family.repetition_penalty,
    )
    prompt = run.prompt
    generate: Any = steps.generate
    sequences: Tensor = generate(
        input_ids=run.seen,
        attention_mask=prompt.attention_mask.long(),
        generation_config=settings,
        **{CACHE: _Reordered(run)},
    )
    answers = []
    for row in sequences[:, prompt.input_ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in end_tokens), len(row))
        answers.append(NewTokens([token for token in row[:end] if token != pad_token], end < len(row)))
    return answers
