"""The attention seam: one function that reads rows of weights and adds score biases, on SDPA or FlashAttention.

Source: the attention interface of transformers (`transformers/integrations/sdpa_attention.py`, `masking_utils.py`).
Rule: an attention function and its mask function are registered together. Without the second, transformers hands the
function no mask and padding takes part in attention without a word. Rows of one pass may attend in different ways: each
`AttentionCall` says how some of them do, and none changes what another row's kernel is.
Deviates from `output_attentions=True`, which needs eager attention and `q * k` weights per head and block: here the
kernel stays what it was, and only the wanted rows are computed again from the query and key that the block already
has, after the rotary embedding, in at least float32.
SDPA does without cuDNN, which PyTorch prefers on some GPUs: it takes 0.4 s to plan for every new shape (measured by
others: modelscope/FunASR issue 3704), and every decoding step of every batch has one.

Axis letters: b rows, h query heads, g key-value heads, n = h / g, q query positions, r the last of them, k key
positions, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lmms_ca_plugin.errors import OptionError

PREFIX = "lmms_ca_"
KernelName = Literal["sdpa", "flash_attention_2", "flash_attention_3"]
KERNELS = get_args(KernelName)


@dataclass(frozen=True)
class Bias:
    """What is added to the scaled scores of some keys.

    Attributes:
        keys: (b, k), added for each key.
        queries: (b, q) bool, the queries for which it is; None is every query of the pass.
    """

    keys: Tensor
    queries: Tensor | None = None

    def on_last(self, rows: int, device: torch.device) -> Tensor:
        """Spreads it over the scores of the last `rows` queries: (b, 1, r, k), or (b, 1, 1, k) if all are alike."""
        keys = self.keys[:, None, None].to(device)  # (b, 1, 1, k)
        if self.queries is None:
            return keys
        return torch.where(self.queries[:, None, -rows:, None].to(device), keys, 0.0)  # (b, 1, r, k)


@dataclass(frozen=True)
class Reweighting:
    """Other weights for the last queries, by a function of their own.

    Attributes:
        reweigh: (b, h, r, k) post-softmax weights, at least float32 -> (b, h, r, k) those that take their place.
        queries: (b, r) bool, the queries it acts on; None is every query of the pass.
    """

    reweigh: Callable[[Tensor], Tensor]
    queries: Tensor | None = None


@dataclass(frozen=True)
class Kernel:
    """transformers' attention functions, as one block calls them."""

    module: Any
    name: str
    scaling: float
    options: dict[str, Any]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attends: (b, h, q, d), (b, g, k, d), (b, g, k, d) -> (b, q, h, d)."""
        attention = partial(ALL_ATTENTION_FUNCTIONS[self.name], self.module, scaling=self.scaling, **self.options)
        output: Tensor
        if self.name == "sdpa":
            output = attention(query, key, value, mask)[0]
            return output
        # FlashAttention looks its own kernel up under the config's name, which is the seam's while a run is on. To set
        # the name takes longer than SDPA's own call does.
        config = self.module.config
        seam_name = config._attn_implementation
        config._attn_implementation = self.name
        try:
            output = attention(query, key, value, mask)[0]
        finally:
            config._attn_implementation = seam_name
        return output


class Call(Protocol):
    """How some rows of a pass attend in one block."""

    @property
    def rows(self) -> slice:
        """Which rows of the pass they are."""

    def attend(self, kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attends for these rows: (b, h, q, d), (b, g, k, d), (b, g, k, d) and the kernel's mask -> (b, q, h, d)."""


@dataclass
class AttentionCall:
    """What one block's attention shall read and add in one pass, for some rows; `weights` is filled by the call.

    Attributes:
        attention_mask: (b, k) bool, True at keys that are real tokens.
        rows: Which rows of the pass these b are.
        read_last: Whether to compute the last query's weights.
        bias: What is added to scores; None leaves the kernel alone.
        reweighting: What the last queries' weights are changed by, after `bias`; the kernel stays for all others.
        last_only: Whether the last query's output alone is wanted; it then stands in every position's place.
        explicit_last: Whether to compute the last query's output from `weights`, and to make them a leaf that requires
            a gradient, so that one can be asked how an answer depends on them.
        weights: (b, h, k), at least float32: post-softmax weights of the last query, set when `read_last` or
            `explicit_last`.
    """

    attention_mask: Tensor
    rows: slice
    read_last: bool = False
    bias: Bias | None = None
    reweighting: Reweighting | None = None
    last_only: bool = False
    explicit_last: bool = False
    weights: Tensor | None = field(default=None, init=False)

    def attend(self, kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attends for these rows: (b, h, q, d), (b, g, k, d), (b, g, k, d) and the kernel's mask -> (b, q, h, d)."""
        positions = query.shape[2]
        if self.last_only:
            query = query[:, :, -1:]  # (b, h, 1, d)
            if mask is not None and mask.ndim == 4:  # FlashAttention's, (b, k), has no queries
                mask = mask[:, :, -1:]
        q = query.shape[2]
        # With a model spread over devices, what the engine made on the first one is needed where this block is.
        attention_mask = self.attention_mask.to(query.device)
        if self.read_last or self.explicit_last:
            allowed = attention_mask[:, None, None, :]  # the last query sees every real key
            self.weights = attention_weights(query[:, :, -1:], key, kernel.scaling, allowed)[:, :, 0]  # (b, h, k)
        if self.bias is not None:
            # FlashAttention takes no bias, so a block whose scores are edited runs SDPA with an explicit mask.
            # A finite number instead of minus infinity: a padded query sees no key at all, and its row must stay a
            # number. Half the lowest, because kernels multiply scores by log2(e).
            kernel, lowest = replace(kernel, name="sdpa"), torch.finfo(query.dtype).min / 2
            bias = self.bias.on_last(q, query.device).to(query).clamp(min=lowest)
            mask = torch.where(visible(attention_mask, q), bias, lowest)  # (b, 1, q, k)
        if self.reweighting is None:
            output = kernel(query, key, value, mask)  # (b, q, h, d)
        elif self.reweighting.queries is None:
            output = _reweighted(self, query, key, value, kernel.scaling, attention_mask)  # (b, q, h, d)
        else:
            queries = self.reweighting.queries[:, -q:].to(query.device)  # (b, r)
            kept = q - queries.shape[1]
            edited = _reweighted(self, query[:, :, kept:], key, value, kernel.scaling, attention_mask)  # (b, r, h, d)
            output = kernel(query, key, value, mask)  # (b, q, h, d)
            last = torch.where(queries[:, :, None, None], edited, output[:, kept:])  # (b, r, h, d)
            output = torch.cat([output[:, :kept], last], 1)  # (b, q, h, d)
        if self.explicit_last and self.weights is not None:
            self.weights = self.weights.detach().requires_grad_()
            output = torch.cat([output[:, :-1], _weighted(self.weights[:, :, None], value)], 1)  # (b, q, h, d)
        return output.expand(-1, positions, -1, -1) if self.last_only else output


def visible(attention_mask: Tensor, num_queries: int) -> Tensor:
    """Says which keys each of the last `num_queries` positions may see: itself and real tokens before it.

    Args:
        attention_mask: (b, k) bool, True at real tokens.
        num_queries: How many of the k positions are queries, counted from the end.

    Returns:
        (b, 1, q, k) bool.
    """
    allowed = attention_mask[:, None, None, :]  # (b, 1, 1, k)
    if num_queries == 1:
        return allowed
    num_keys = attention_mask.shape[1]
    keys = torch.arange(num_keys, device=attention_mask.device)
    causal = keys[None, :] <= keys[num_keys - num_queries :, None]  # (q, k)
    return causal & allowed  # (b, 1, q, k)


def attention_weights(
    query: Tensor, key: Tensor, scaling: float, allowed: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Computes post-softmax attention weights of the given queries, in at least float32.

    Args:
        query: (b, h, q, d), after the rotary embedding.
        key: (b, g, k, d), after the rotary embedding; g divides h (grouped key-value heads).
        scaling: Factor on the scores, `d ** -0.5` in the LLaMA family.
        allowed: (b, 1 or h, q, k) bool, True where a query may see a key.
        bias: Broadcastable to (b, h, q, k), added to the scaled scores.

    Returns:
        (b, h, q, k); every row sums to 1. A query that may see no key, i.e. padding, gets equal weights: a number.
    """
    b, h, q, d = query.shape
    g, k = key.shape[1], key.shape[2]
    dtype = torch.promote_types(query.dtype, torch.float32)
    grouped = query.to(dtype).reshape(b, g, h // g * q, d)  # (b, g, n*q, d): one key head serves n query heads
    scores = (grouped @ key.to(dtype).transpose(2, 3)).view(b, h, q, k) * scaling
    if bias is not None:
        scores = scores + bias.to(dtype)
    return torch.where(allowed, scores, torch.finfo(dtype).min).softmax(-1)


def _reweighted(
    call: AttentionCall, query: Tensor, key: Tensor, value: Tensor, scaling: float, attention_mask: Tensor
) -> Tensor:
    """Attention of the last r queries, (b, h, r, d), under `call.reweighting`: (b, r, h, d)."""
    assert call.reweighting is not None
    rows = query.shape[2]
    bias = None if call.bias is None else call.bias.on_last(rows, query.device)
    weights = attention_weights(query, key, scaling, visible(attention_mask, rows), bias)  # (b, h, r, k)
    return _weighted(call.reweighting.reweigh(weights), value)


def _seam(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    kernel: str,
    scaling: float,
    calls: Sequence[Call] = (),
    position_ids: Tensor | None = None,  # noqa: ARG001
    **options: Any,
) -> tuple[Tensor, None]:
    # Positions go no further: the keys hold them already, and FlashAttention would look for packed prompts in them.
    usual = Kernel(module, kernel, scaling, options)
    if not calls:
        return usual(query, key, value, attention_mask), None
    if len(calls) == 1:  # all rows'
        return calls[0].attend(usual, query, key, value, attention_mask), None
    masks = [None if attention_mask is None else attention_mask[call.rows] for call in calls]
    outputs = [
        call.attend(usual, query[call.rows], key[call.rows], value[call.rows], mask)
        for call, mask in zip(calls, masks, strict=True)
    ]
    return torch.cat(outputs), None  # (b, q, h, d)


def _weighted(weights: Tensor, value: Tensor) -> Tensor:
    """Sums the values by the weights of the last r queries: (b, h, r, k) and (b, g, k, d) -> (b, r, h, d)."""
    b, h, r, k = weights.shape
    g = value.shape[1]
    summed = weights.reshape(b, g, h // g * r, k) @ value.to(weights.dtype)  # (b, g, n*r, d)
    return summed.view(b, h, r, -1).transpose(1, 2).to(value.dtype)  # (b, r, h, d)


@contextmanager
def seam(config: Any) -> Iterator[None]:
    """Routes the attention of every block with this config through the seam, and takes the seam out again.

    Args:
        config: The trunk's text config, the object that its attention modules hold.

    Raises:
        OptionError: The seam is in place already, or the kernel is not one it can stand on.
    """
    kernel = config._attn_implementation
    if kernel.startswith(PREFIX):
        raise OptionError(
            "A method is attached to this model already; two methods at once are not defined. Finish it first."
        )
    if kernel not in KERNELS and not _from_hub(kernel):
        raise OptionError(f"attn_implementation '{kernel}' is not supported. Allowed: {', '.join(KERNELS)}.")
    name = PREFIX + kernel
    AttentionInterface.register(name, partial(_seam, kernel=kernel))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    sdpa: Any = torch.backends.cuda
    config._attn_implementation, with_cudnn = name, sdpa.cudnn_sdp_enabled()
    sdpa.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        config._attn_implementation = kernel
        sdpa.enable_cudnn_sdp(with_cudnn)


def _from_hub(kernel: str) -> bool:
    """Whether it is what transformers takes in place of a FlashAttention that is not installed: a kernel of the hub."""
    known = kernel in ALL_ATTENTION_FUNCTIONS and kernel in ALL_MASK_ATTENTION_FUNCTIONS
    return known and kernel.startswith("kernels-community/") and "flash" in kernel
