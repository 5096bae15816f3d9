"""GPUs that are not there: tensors that say they are on one, compute on the CPU, and refuse what CUDA refuses.

What a tensor's device decides in the code (where a mask is made, where two tensors meet, what has to be moved) is tried
on these without a GPU: an operation on tensors of two devices fails here as it fails there.
Rules of CUDA that are kept: operands lie on one device, but a number (a tensor without axes) may stay on the CPU, and
so may an index; a copy may cross. Kernels, their rounding and their memory are the CPU's.
Gradients: autograd's own code takes these tensors for the CPU's. What it makes beside them, or casts, stays where its
gradient is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, wraps
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmms_ca_plugin.families import _masks

GPUS = 2
MEMORY = 2**34
CROSSING = {torch.ops.aten.copy_.default}
INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}


class Pretended(Tensor):
    """A tensor on a GPU that is not there.

    Attributes:
        held: What it holds, on the CPU.
        where: The device it says it is on.
    """

    held: Tensor
    where: torch.device
    waits = 0  # how often the CPU has waited for a value, as `tolist`, `item` and `cpu` have it wait

    @staticmethod
    def __new__(cls, held: Tensor, where: torch.device) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )
        made.held, made.where = held, where
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretended({self.held!r}, {self.where})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _INSTEAD:
            return _INSTEAD[func](*args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, nullcontext())


class _Moved(torch.autograd.Function):
    """A copy to another device, through which gradients flow back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, where: torch.device) -> Tensor:
        ctx.origin = tensor.device
        held = _held(tensor).clone()
        return Pretended(held, where) if where.type == "cuda" else held

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return moved(gradient, ctx.origin), None


def moved(tensor: Tensor, where: torch.device) -> Tensor:
    """Brings a tensor to a device."""
    if tensor.device == where:
        return tensor
    if where.type == "cpu":
        Pretended.waits += 1
    result: Tensor = _Moved.apply(tensor, where)
    return result


def _to(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    if copy:
        tensor = tensor.clone()
    if args and isinstance(args[0], Tensor):
        where, dtype = args[0].device, args[0].dtype
    else:
        where, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    if dtype is not None and dtype != tensor.dtype:
        tensor = tensor.type(dtype) if not isinstance(tensor, Pretended) else _typed(tensor, dtype)
    return tensor if where is None else moved(tensor, _indexed(where))


def _typed(tensor: Pretended, dtype: torch.dtype) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.to(dtype)


def _listed(tensor: Pretended) -> Any:
    Pretended.waits += 1
    return tensor.held.tolist()


_INSTEAD = {
    Tensor.device.__get__: lambda tensor: tensor.where,
    Tensor.is_cuda.__get__: lambda _tensor: True,
    Tensor.tolist: _listed,
    Tensor.data_ptr: lambda tensor: tensor.held.data_ptr(),
    Tensor.cpu: lambda tensor: moved(tensor, torch.device("cpu")),
    Tensor.to: _to,
}


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Pretended) else value


def _indexed(device: torch.device) -> torch.device:
    return torch.device("cuda:0") if device == torch.device("cuda") else device


def _computed(func: Any, args: Any, kwargs: dict[str, Any], watched: AbstractContextManager[Any]) -> Any:
    """Computes an operation on the CPU; what comes out is where it would be."""
    if _made_of_others(func):
        with watched:  # inference mode does not take it apart by itself
            return func.decompose(*args, **kwargs)
    if func is torch.ops.aten._local_scalar_dense.default:
        Pretended.waits += 1
    tensors: list[Tensor] = []
    held = _mapped((args, kwargs), lambda tensor: tensors.append(tensor) or _held(tensor))
    named = None if func is torch.ops.aten._to_copy.default and isinstance(args[0], Pretended) else kwargs.get("device")
    where = _meet(func, args, tensors) if named is None else _indexed(torch.device(named))
    if kwargs.get("device") is not None:
        held[1]["device"] = torch.device("cpu")
    out = func(*held[0], **held[1])
    if where.type != "cuda":
        return out
    # What was changed in place is the tensor that was given.
    given = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Pretended)}
    return _mapped(out, lambda tensor: given[id(tensor)] if id(tensor) in given else Pretended(tensor, where))


@cache
def _made_of_others(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _mapped(value: Any, change: Any) -> Any:
    """Changes the tensors in what an operation takes or gives."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(each, change) for each in value])
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    return value


def _meet(func: Any, args: Any, tensors: list[Tensor]) -> torch.device:
    """The one device on which tensors meet.

    Raises:
        RuntimeError: They lie on several, and the operation does not allow it.
    """
    if func in CROSSING:
        return _where(args[0])
    if func in INDEXING:
        summed = func is torch.ops.aten.index_put.default and args[3:] == (True,)  # the gradient of an index
        tensors = [args[2 if summed else 0], *(tensor for tensor in tensors if isinstance(tensor, Pretended))]
    places = {_where(tensor) for tensor in tensors if tensor.dim() or isinstance(tensor, Pretended)}
    if len(places) > 1:
        raise RuntimeError(f"{func}: expected all tensors to be on one device, but found {places}.")
    return places.pop() if places else torch.device("cpu")


def _where(tensor: Tensor) -> torch.device:
    return tensor.where if isinstance(tensor, Pretended) else tensor.device


class _Factories(TorchDispatchMode):
    """Has tensors that are made on a GPU by name be pretended ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, self)


def _at_once(function: Any) -> Any:
    """Has transformers' mask function, which brings all to the states' device, compute on the CPU as one operation.

    In 4.57 it maps over its tensors (`vmap`), which PyTorch cannot do with tensors made of others.
    """

    @wraps(function)
    def computed(**given: Any) -> Any:
        where = next(_where(given[name]) for name in ("inputs_embeds", "input_embeds") if name in given)
        out = function(**_mapped(given, _held))
        return _mapped(out, lambda tensor: Pretended(tensor, where)) if where.type == "cuda" else out

    return computed


@contextmanager
def pretended_gpus(patch: Any) -> Iterator[None]:
    """Has PyTorch find GPUs that are not there.

    Args:
        patch: pytest's monkeypatch.
    """
    if transformers.__version__.startswith("4."):
        patch.setattr(_masks, "create_causal_mask", _at_once(_masks.create_causal_mask))
    patch.setattr(torch, "inference_mode", torch.no_grad)  # tensors made of others cannot be inference tensors
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch.cuda, "device_count", lambda: GPUS)
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "mem_get_info", lambda _device=None: (MEMORY, MEMORY))
    patch.setattr(torch.cuda, "synchronize", lambda _device=None: None)
    patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device=None: None)
    patch.setattr(torch.cuda, "memory_allocated", lambda _device=None: 0)
    patch.setattr(torch.cuda, "memory_reserved", lambda _device=None: 0)
    patch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30 * (1 + (device.index or 0)))
    patch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    lifted, overwritten = (
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_overwrite_module_params_on_conversion(),
    )
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Factories():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)
