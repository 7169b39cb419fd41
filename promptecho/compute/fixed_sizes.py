"""What a compiler makes of a block is made for fixed sizes, not for those that a process happens to meet first.

Code whose sizes vary serves all of them, but the compiler chooses among equivalent kernels by example sizes, and takes
them from the first call. So a run that goes on after an interruption, and meets other batches first, had other kernels
and last bits than an undisturbed one. Here, where a call would compile anew, the compiler only traces it, which tells
which sizes vary and which of them are one. A stand-in of the same kind in sizes that are always the same (2 images of
1,024 tokens) is then passed through the block first, and what is compiled for it serves the call as well.

The stand-in is zeros: it draws no random numbers, keeps no gradient, and is gone afterwards.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

BATCH, LENGTH = 2, 1024
TAG = f"promptecho {BATCH} x {LENGTH}"  # of what is kept on the disk
_THREAD = threading.local()


class SizesMetError(Exception):
    """A call needs code that is not there. `sizes` has, for each tensor of the call by its id, its sizes in symbols."""

    def __init__(self, sizes: dict[int, list[Any]]):
        super().__init__("to be compiled for fixed sizes first")
        self.sizes = sizes


@functools.cache
def backend(name: str) -> Callable[..., Any]:
    """torch.compile's backend of that name, which only tells the sizes while `asking`."""
    compiler = torch._dynamo.lookup_backend(name)

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Any], **options: Any) -> Any:
        if getattr(_THREAD, "asking", False):
            raise _sizes_met(graph)
        return compiler(graph, inputs, **options)

    return compile_graph


@contextmanager
def asking() -> Iterator[None]:
    """In this thread, calls inside that would compile raise `SizesMetError` in dynamo's `BackendCompilerFailed`."""
    _THREAD.asking = True
    try:
        yield
    finally:
        _THREAD.asking = False


def _sizes_met(graph: torch.fx.GraphModule) -> SizesMetError:
    sizes = {}
    for node in graph.graph.find_nodes(op="placeholder"):
        argument, value = node.meta.get("grapharg"), node.meta.get("example_value")
        if argument is not None and isinstance(value, torch.Tensor):
            sizes[id(argument.example)] = list(value.shape)
    return SizesMetError(sizes)


def no_views(values: Any) -> Any:
    """The inputs of a call, in tuples and dicts, with tensors that need no gradient as no views of others: code is made
    for a view of such and such a tensor, and of what, may depend on the batch."""
    if isinstance(values, torch.Tensor):
        return values.data if values._base is not None and not values.requires_grad else values
    if type(values) is tuple:
        return tuple(no_views(value) for value in values)
    if type(values) is dict:
        return {key: no_views(value) for key, value in values.items()}
    return values


def stand_in(met: SizesMetError, call: Any) -> Any:
    """A call's inputs (tensors in any nesting) in fixed sizes, each tensor once however often it occurs."""
    tensors = {id(one): one for one in tree_leaves(call) if isinstance(one, torch.Tensor)}
    values: dict[Any, int] = {}
    for key, tensor in tensors.items():  # the first size of the first input counts images
        first = met.sizes.get(key, [0])[0]
        if tensor.is_floating_point():
            if isinstance(first, torch.SymInt):
                values = dict.fromkeys(first.node.expr.free_symbols, BATCH)
            break

    def fixed(size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        expr = size.node.expr
        return int(expr.xreplace({symbol: values.get(symbol, LENGTH) for symbol in expr.free_symbols}))

    made = {
        key: _zeros(tensor, [fixed(size) for size in met.sizes[key]])
        for key, tensor in tensors.items() if key in met.sizes
    }  # fmt: skip
    return tree_map(lambda one: made.get(id(one), one) if isinstance(one, torch.Tensor) else one, call)


def _zeros(like: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Zeros of other sizes with the layout of `like`: what repeats there repeats, what has gaps there has gaps."""
    strides, dense, fixed = [0] * like.ndim, 1, 1
    for dim in sorted(range(like.ndim), key=lambda dim: (like.stride(dim), -dim)):
        if like.stride(dim) == 0:
            continue
        if like.size(dim) > 1 and like.stride(dim) != dense:
            fixed *= 2
        strides[dim] = fixed
        if like.size(dim) > 1:
            dense, fixed = like.stride(dim) * like.size(dim), fixed * sizes[dim]
    offset = 64 if like.storage_offset() else 0
    room = torch.zeros(offset + fixed, dtype=like.dtype, device=like.device)
    return room.as_strided(sizes, strides, offset).data.requires_grad_(like.requires_grad)
