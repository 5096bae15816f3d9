"""The passes a method's `prepare` may ask for, before the answering pass: attention and gradients over a picture.

Rule: only what depends on the question is computed per question. The vision tower runs once per picture. Prompts that
ask different things of one picture share the keys and values of everything up to the end of the picture. A map of
attention needs of its own block no more than keys, and the last token's queries. A gradient by the last token's
attention needs no graph but that token's own: behind the block nothing else depends on it.

Axis letters: b samples, s prompt positions, p positions up to the picture's end, m positions after it, e hidden size,
h heads, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lmms_ca_plugin.attention import AttentionCall, seam
from lmms_ca_plugin.engine.flight import Step
from lmms_ca_plugin.engine.run import Run
from lmms_ca_plugin.families._contract import Family, Inputs, Prompt
from lmms_ca_plugin.families._views import Features
from lmms_ca_plugin.methods._contract import Plan, Read


@dataclass(frozen=True)
class MapPasses:
    """`methods._passes.Passes` on a loaded checkpoint.

    Attributes:
        family: The loaded checkpoint.
        check: Refuses a batch whose prompts leave no room for the answer.
    """

    family: Family
    check: Callable[[Inputs], None]

    def look(self, inputs: Inputs) -> list[Features]:
        """Runs the vision side over all pictures of a batch."""
        with torch.no_grad():
            return self.family.look(inputs)

    def look_at_base(self, inputs: Inputs) -> list[Features]:
        """Runs the vision side over the base views of a batch."""
        with torch.no_grad():
            return self.family.look_at_base(inputs)

    # ---- attention ---------------------------------------------------------------------------------------------------
    def attention(self, prompts: Sequence[Inputs], block: int) -> list[Tensor]:
        """Reads the last prompt token's attention at one block, for each batch (b, s)."""
        with torch.no_grad():
            merged = [self.family.embed(inputs) for inputs in prompts]
        heads = [_Split.after_picture(prompt) for prompt in merged]
        if all(head.same_start(heads[0]) for head in heads[1:]):
            return self._attention_after(heads, block)
        # A chat template that puts the question before the picture makes every key of the picture depend on it.
        return [self._attention(prompt, block) for prompt in merged]

    def _attention(self, prompt: Prompt, block: int) -> Tensor:
        run = Run(self.family, Plan(reads=(Read(block),)), prompt, new_tokens=0)
        run.end = block
        with run.attached():
            run.run_blocks(0, block + 1, prompt.states, run.begin())
        return run.reads[Read(block)]

    def _attention_after(self, splits: Sequence[_Split], block: int) -> list[Tensor]:
        start = splits[0].start
        longest = max(split.rest.states.shape[1] for split in splits)
        run = Run(self.family, Plan(reads=(Read(block),)), start, new_tokens=longest)
        run.end = block
        weights = []
        with run.attached():
            run.run_blocks(0, block + 1, start.states, replace(run.begin(), prefill=False))
            for split in splits:
                run.cache.rewind(start.states.shape[1])
                step = self._next(start, split.rest)
                run.run_blocks(0, block + 1, split.rest.states, step)
                weights.append(split.as_asked(run.reads[Read(block)]))
        return weights

    def _next(self, before: Prompt, following: Prompt) -> Step:
        """Prepares the pass of positions that follow those in the cache."""
        attention_mask = torch.cat([before.attention_mask, following.attention_mask], 1)  # (b, p + m)
        return Step(
            attention_mask=attention_mask,
            mask=self.family.mask(following.states, attention_mask),
            arguments=self.family.block_arguments(following.states, following.positions),
            prefill=True,
        )

    # ---- gradients ---------------------------------------------------------------------------------------------------
    def attention_gradient(self, inputs: Inputs, block: int) -> tuple[Tensor, Tensor]:
        """Returns the last token's attention at one block and the gradient by it, (b, h, s) each."""
        blocks = self.family.trunk.num_blocks
        with seam(self.family.text_config), torch.no_grad(), _frozen(self.family.model):
            prompt = self.family.embed(inputs)
            before, last = _cut(prompt, slice(None, -1)), _cut(prompt, slice(-1, None))
            run = Run(self.family, Plan(), before, new_tokens=1)
            run.run_blocks(0, blocks, before.states, run.begin())
            step = self._next(before, last)
            states = run.run_blocks(0, block, last.states, step)  # (b, 1, e)
            with torch.enable_grad():
                call = AttentionCall(step.attention_mask, slice(None), explicit_last=True)
                states = run.pass_block(block, states, step, (call,))
                states = run.run_blocks(block + 1, blocks, self.family.between(block, states), step)
                likeliest = _likeliest(self.family.logits(states[:, -1]))
                weights = call.weights
                assert weights is not None  # explicit_last sets them
                (gradient,) = torch.autograd.grad(likeliest, weights)
        device = prompt.states.device  # the block may be on another one
        return weights.detach().to(device), gradient.to(device)

    def pixel_gradients(self, pictures: Inputs, prompts: Sequence[Inputs]) -> tuple[list[Tensor], list[Features]]:
        """Returns the gradient by `pixel_values` for each batch, and the pictures' features."""
        family = self.family
        with seam(family.text_config), torch.enable_grad(), _frozen(family.model):
            pixels = pictures.pictures["pixel_values"].to(family.model.device, family.model.dtype)
            pixels = pixels.detach().requires_grad_()
            looked = family.look(replace(pictures, pictures={**pictures.pictures, "pixel_values": pixels}))
            gradients: list[Tensor] = []
            for inputs in prompts:
                # Each prompt passes whole: a shared start would hold the graphs of all of them at the same time.
                leaves = tuple(replace(f, states=f.states.detach().requires_grad_()) for f in looked)
                prompt = family.embed(replace(inputs, features=leaves))
                likeliest = _likeliest(Run(family, Plan(), prompt, new_tokens=0).prefill())
                by_features = torch.autograd.grad(likeliest, [f.states for f in leaves])
                gradients += torch.autograd.grad(
                    [f.states for f in looked], pixels, grad_outputs=by_features, retain_graph=True
                )
        return gradients, [f.detached() for f in looked]


@dataclass(frozen=True)
class _Split:
    """A batch cut at the end of each sample's picture, both halves left-padded on their own."""

    start: Prompt  # (b, p)
    rest: Prompt  # (b, m); what belongs to the start is padding here
    attention_mask: Tensor  # (b, s), of the whole
    ends: Tensor  # (b,): the position after the picture, in the whole

    @classmethod
    def after_picture(cls, prompt: Prompt) -> _Split:
        b, s = prompt.attention_mask.shape
        device = prompt.attention_mask.device
        places = torch.arange(s, device=device)
        ends = (places + 1).mul(prompt.is_image).amax(-1)  # (b,)
        begins = s - prompt.attention_mask.sum(-1)  # (b,)
        p, m = int((ends - begins).max()), s - int(ends.min())
        source = ends[:, None] - p + torch.arange(p, device=device)  # (b, p): each start moves to the right
        attention_mask = source >= begins[:, None]
        rows, source = torch.arange(b, device=device)[:, None], source.clamp(min=0)
        start = replace(
            prompt,
            input_ids=prompt.input_ids[rows, source].masked_fill(~attention_mask, 0),  # (b, p)
            states=prompt.states[rows, source],  # (b, p, e)
            attention_mask=attention_mask,
            kinds=prompt.kinds[rows, source].masked_fill(~attention_mask, 0),
            positions=prompt.positions[rows, source],
        )
        rest = _cut(prompt, slice(s - m, None))
        return cls(start, replace(rest, attention_mask=places[s - m :] >= ends[:, None]), prompt.attention_mask, ends)

    def same_start(self, other: _Split) -> bool:
        """Says whether two batches are the same up to the end of the picture."""
        mine, others = self.start, other.start
        return torch.equal(mine.attention_mask, others.attention_mask) and torch.equal(mine.input_ids, others.input_ids)

    def as_asked(self, weights: Tensor) -> Tensor:
        """Brings weights over start and rest, (b, p + m), back to the positions of the whole, (b, s)."""
        s, p = self.attention_mask.shape[1], self.start.attention_mask.shape[1]
        places = torch.arange(s, device=weights.device)
        shifts = torch.where(places < self.ends[:, None], p - self.ends[:, None], weights.shape[1] - s)  # (b, s)
        return weights.gather(1, (places + shifts).clamp(min=0)) * self.attention_mask


def _cut(prompt: Prompt, part: slice) -> Prompt:
    return replace(
        prompt,
        input_ids=prompt.input_ids[:, part],
        states=prompt.states[:, part],
        attention_mask=prompt.attention_mask[:, part],
        kinds=prompt.kinds[:, part],
        positions=prompt.positions[:, part],
    )


def _likeliest(logits: Tensor) -> Tensor:
    """Sums the samples' largest log probabilities, (b, v) -> (); a sample's gradient is its own."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(-1).max(-1).values.sum()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keeps parameters out of the graph inside, so that none of their inputs are stored and none gets a gradient."""
    thawed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
