"""A linear layer with its adapter as one operator: base and adapter in three matrix products, nothing between them.

y = x W^T + bias + scale (x A^T) B^T. Written out (as PEFT does it), the adapter's result is a tensor of its own, which
is scaled, then added: three more passes over an activation, and two more roundings in bfloat16. Here the last product
adds its result to the base layer's in the same kernel (`addmm_`), and so does the gradient of x.

It is an operator of torch's, not plain code, so that selective activation checkpointing sees one result to keep, where
it would else have to keep the base layer's as well. torch's FLOP counters know it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula


def _forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = x.flatten(0, -2)
    low = linear(rows, a.to(x.dtype))
    y = linear(rows, weight, bias)
    y.addmm_(low, b.to(x.dtype).T, alpha=scale)
    return y.view(*x.shape[:-1], weight.shape[0]), low


def _backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor,
    low: torch.Tensor, scale: float, of_x: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    rows, g = x.flatten(0, -2), gradient.flatten(0, -2)
    g_low = (g @ b.to(g.dtype)).mul_(scale)
    g_a, g_b = g_low.T @ rows, (g.T @ low).mul_(scale)
    g_x = x.new_empty(0)
    if of_x:
        g_x = g @ weight
        g_x.addmm_(g_low, a.to(g.dtype))
        g_x = g_x.view(x.shape)
    return g_x, g_a.to(a.dtype), g_b.to(b.dtype)


# Schemas are written out: torch does not read them from annotations that are strings.
_SCHEMA = "(Tensor x, Tensor weight, Tensor? bias, Tensor a, Tensor b, float scale) -> (Tensor, Tensor)"
_SCHEMA_BACKWARD = (
    "(Tensor gradient, Tensor x, Tensor weight, Tensor a, Tensor b, Tensor low, float scale, bool of_x)"
    " -> (Tensor, Tensor, Tensor)"
)
_operator = torch.library.custom_op("promptecho::lora_linear", _forward, mutates_args=(), schema=_SCHEMA)
_operator_backward = torch.library.custom_op(
    "promptecho::lora_linear_backward", _backward, mutates_args=(), schema=_SCHEMA_BACKWARD
)


def lora_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float
) -> torch.Tensor:
    """The layer's result [..., out] for x [..., in]; gradients go to x, `a` and `b`, not to the frozen weights.

    Args:
        weight: [out, in], and `bias` [out]: of the base layer, in the type of x.
        a: [rank, in], and `b` [out, rank]: of the adapter, in any type; products are computed in that of x.
        scale: alpha / rank.
    """
    return _operator(x, weight, bias, a, b, scale)[0]


@_operator.register_fake
def _(x, weight, bias, a, b, scale):
    return x.new_empty((*x.shape[:-1], weight.shape[0])), x.new_empty((x.numel() // x.shape[-1], a.shape[0]))


@_operator_backward.register_fake
def _(gradient, x, weight, a, b, low, scale, of_x):
    return x.new_empty(x.shape if of_x else (0,)), torch.empty_like(a), torch.empty_like(b)


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, weight, _, a, b, scale = inputs
    ctx.save_for_backward(x, weight, a, b, output[1])
    ctx.scale = scale
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple:
    of_x = ctx.needs_input_grad[0]
    g_x, g_a, g_b = _operator_backward(gradient, *ctx.saved_tensors, ctx.scale, of_x)
    return g_x if of_x else None, None, None, g_a, g_b, None


_operator.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.promptecho.lora_linear)
def _flops(x: torch.Size, weight: torch.Size, bias: Any, a: torch.Size, *_: Any, **__: Any) -> int:
    (out, width), rank, rows = weight, a[0], x.numel() // x[-1]
    return 2 * rows * (out * width + rank * (out + width))


@register_flop_formula(torch.ops.promptecho.lora_linear_backward)
def _flops_backward(gradient, x, weight, a, b, low, scale, of_x, **_: Any) -> int:
    (out, width), rank, rows = weight, a[0], x.numel() // x[-1]
    adapter = 2 * rows * rank * (2 * out + width)
    return adapter + (2 * rows * width * (out + rank) if of_x else 0)
