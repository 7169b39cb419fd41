"""Run a piece of code on torch's meta device, where tensors have shapes and no values, and count what it would take.

The real model classes run with their real sizes, so FLOPs and memory need no formulas that could fall behind the code.
What differs from a GPU: kernels' own workspace and the allocator's rounding are not seen, and attention counts as a
fused kernel (flash attention, or memory-efficient attention where there is a mask), as it runs on a GPU.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
ATEN = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """What a piece of code takes.

    `flops` by what computes them ("bfloat16", "float32", "convolution float32", ...): a multiplication and an addition
    count as two; only matrix products, convolutions and attention count. `peak`: the most bytes that lived at once,
    beyond what was there before.
    """

    flops: Mapping[str, int] = field(default_factory=dict)
    peak: int = 0

    @property
    def total(self) -> int:
        return sum(self.flops.values())

    def times(self, n: float) -> Cost:
        """The same `n` times in turn."""
        return Cost({kind: round(value * n) for kind, value in self.flops.items()}, self.peak if n else 0)

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(dict(Counter(self.flops) + Counter(other.flops)), max(self.peak, other.peak))


def trace(code: Callable[[], Any]) -> Cost:
    """Run `code` on meta tensors; what was made before it does not count."""
    tally = Tally(shapes_only)
    with gpu_attention(), tally:
        result = code()
    del result
    return Cost(dict(tally.flops), tally.peak)


class Tally(TorchDispatchMode):
    """FLOPs of the operators that run inside, by torch's own table; bytes of the tensors that they made and that are
    still referenced (`now`), and their maximum (`peak`).

    torch's FlopCounterMode counts the same FLOPs, but keeps a checkpointed layer's activations alive.

    Args:
        run: how an operator is run: `run(operator, args, kwargs, tensors among these)`.
    """

    def __init__(self, run: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.now = self.peak = 0
        self._run = run or (lambda function, args, kwargs, tensors: function(*args, **kwargs))
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = tensors_in((args, kwargs))
        for tensor in inputs:  # made outside: it was there before
            self._add(tensor, count=False)
        result = self._run(function, args, kwargs, inputs)
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self.flops[_kind(function, inputs)] += int(count(*args, **kwargs, out_val=result))
        for tensor in tensors_in(result):
            self._add(tensor, count=True)
        return result

    def _add(self, tensor: torch.Tensor, *, count: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if count else 0
        self._known[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def _kind(function, inputs: list[torch.Tensor]) -> str:
    dtype = str(next(x.dtype for x in inputs if x.is_floating_point())).removeprefix("torch.")
    return f"convolution {dtype}" if "convolution" in function.name() else dtype


@contextmanager
def gpu_attention() -> Iterator[None]:
    """Sends `scaled_dot_product_attention` to the kernels that a GPU would take; the CPU's keeps every score.

    By name, because a mode of torch's would not be there when checkpointed layers run again in the backward pass.
    """
    original = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = fused_attention
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = original


def fused_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):  # fmt: skip
    """`scaled_dot_product_attention` through the operator of a fused kernel."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, dim=-3) for x in (key, value))
    if attn_mask is None:
        return ATEN._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros(attn_mask.shape, dtype=query.dtype, device=query.device)
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    bias = attn_mask.to(query.device).expand(*query.shape[:-1], key.shape[-2])
    return ATEN._scaled_dot_product_efficient_attention(
        query, key, value, bias, gradient, dropout_p, is_causal, scale=scale
    )[0]


def shapes_only(function, args: tuple, kwargs: dict, tensors: list[torch.Tensor]) -> Any:
    """Run an operator where numbers have no values and indices do: floating-point tensors live on the meta device,
    integers and masks on the CPU, because models read them (how many patches an image has, where a label is).

    If code reads something that has no value, it finds zeros. Examples are a number that is copied to the CPU, and an
    index that is computed from numbers.
    """
    copy, device = function is ATEN._to_copy.default, kwargs.get("device")
    if not any(x.device == META for x in tensors):
        if device == META and not (args[0].is_floating_point() if copy else _makes_numbers(function, args, kwargs)):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return function(*args, **kwargs)
    if copy and device is not None and device != META:
        return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
    if function is ATEN.index.Tensor:
        args = (args[0], _positions(args[1]), *args[2:])
    if any(x.device != META for x in tensors):
        args, kwargs = mapped(args, _to_meta), mapped(kwargs, _to_meta)
    return mapped(_result(function, args, kwargs), _readable)


def _result(function, args: tuple, kwargs: dict) -> Any:
    """What an operator returns on the meta device: as it did for inputs of these shapes before, because to find the
    shapes of a result takes longer than to make it, and a model's layers are alike. Never for operators that write to
    their inputs or return parts of them."""
    if not _makes_a_new_tensor(function):
        return function(*args, **kwargs)
    key = (function, _form(args), _form(kwargs))
    if key not in _results:
        result = function(*args, **kwargs)
        _results[key] = _form(result)
        return result
    _, size, stride, dtype = _results[key]
    return torch.empty_strided(size, stride, dtype=dtype, device=META)


_results: dict[Any, Any] = {}


@cache
def _makes_a_new_tensor(function) -> bool:
    schema = function._schema
    one_tensor = [str(value.type) for value in schema.returns] == ["Tensor"]
    return one_tensor and not any(value.alias_info for value in (*schema.arguments, *schema.returns))


def _form(value: Any) -> Any:
    """What decides a result's shape, hashable."""
    if isinstance(value, torch.Tensor):
        return (torch.Tensor, tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, dict):
        return tuple((key, _form(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_form(item) for item in value)
    return (type(value), value)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in an operator's arguments or results."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change) for item in value)
    return value


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    """Indices that were made from numbers: zeros."""
    if tensor.dtype in (torch.int64, torch.int32) and tensor.device == META:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return tensor


def _makes_numbers(function, args, kwargs) -> bool:
    """Whether a factory function (zeros, arange, ...) makes floating-point numbers."""
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return dtype.is_floating_point or dtype.is_complex
    if "arange" in function.name():
        return any(isinstance(x, float) for x in args)
    if "full" in function.name():
        return isinstance(args[1], float)
    return True


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.device == META else torch.empty_like(tensor, device=META)


def _positions(indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Indices with each mask replaced by the positions where it is true: on the meta device they cannot be counted."""
    result: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and index.device != META:
            result += index.nonzero().unbind(1)
        else:
            result.append(index)
    return result
