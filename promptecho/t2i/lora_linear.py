"""Linear layers with their adapters as one operator: matrix products, and nothing between them.

y = x W^T + bias + scale (x A^T) B^T. Written out (as PEFT does it), the adapter's result is a tensor of its own, which
is scaled, then added: three more passes over an activation, and two more roundings in bfloat16. Here the last product
adds its result to the base layer's in the same kernel (`addmm_`), and so does the gradient of x.

Layers that read the same x, as those of q, k and v do, are one operator together: x A^T of all of them is one product,
so is its gradient by the A, and the gradient of x is summed inside of the products that make it.

It is an operator of torch's, not plain code, so that selective activation checkpointing sees one result of a layer to
keep, where it would else have to keep the base layer's as well. torch's FLOP counters know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula


class AdaptedWeights(NamedTuple):
    """Of one layer with its adapter: `weight` [out, in] and `bias` [out] of the base layer, in the type of its input;
    `a` [rank, in] and `b` [out, rank] of the adapter, in any type; `scale`: alpha / rank."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    a: torch.Tensor
    b: torch.Tensor
    scale: float


def _forward(
    x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor], scale: float,
) -> tuple[list[torch.Tensor], torch.Tensor]:  # fmt: skip
    rows = x.flatten(0, -2)
    low = linear(rows, _stacked(a, x.dtype))
    results = []
    for index, part in enumerate(_parts(low, a)):
        y = linear(rows, weights[index], biases[index] if biases else None)
        y.addmm_(part, b[index].to(x.dtype).T, alpha=scale)
        results.append(y.view(*x.shape[:-1], y.shape[-1]))
    return results, low


def _backward(
    gradients: Sequence[torch.Tensor], x: torch.Tensor, weights: Sequence[torch.Tensor], a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor], low: torch.Tensor, scale: float, of_x: bool,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:  # fmt: skip
    rows, g_low = x.flatten(0, -2), torch.empty_like(low)
    by_layer = [gradient.flatten(0, -2) for gradient in gradients]
    for g, one, part in zip(by_layer, b, _parts(g_low, a), strict=True):
        torch.mm(g, one.to(g.dtype), out=part)
    g_low.mul_(scale)
    g_a = (g_low.T @ rows).to(a[0].dtype)
    g_b = [
        (g.T @ part).mul_(scale).to(one.dtype)
        for g, one, part in zip(by_layer, b, _parts(low, a), strict=True)
    ]  # fmt: skip
    g_x = x.new_empty(0)
    if of_x:
        g_x = by_layer[0] @ weights[0]
        for g, weight in zip(by_layer[1:], weights[1:], strict=True):
            g_x.addmm_(g, weight)
        g_x.addmm_(g_low, _stacked(a, x.dtype))
        g_x = g_x.view(x.shape)
    return g_x, g_a, g_b


def _stacked(a: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """[all ranks, in]"""
    return (torch.cat(list(a)) if len(a) > 1 else a[0]).to(dtype)


def _parts(low: torch.Tensor, a: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Each layer's columns of [rows, all ranks]."""
    return low.split([one.shape[0] for one in a], dim=1)


# Schemas are written out: torch does not read them from annotations that are strings.
_SCHEMA = "(Tensor x, Tensor[] weights, Tensor[] biases, Tensor[] a, Tensor[] b, float scale) -> (Tensor[], Tensor)"
_SCHEMA_BACKWARD = (
    "(Tensor[] gradients, Tensor x, Tensor[] weights, Tensor[] a, Tensor[] b, Tensor low, float scale, bool of_x)"
    " -> (Tensor, Tensor, Tensor[])"
)
_operator = torch.library.custom_op("promptecho::lora_linear", _forward, mutates_args=(), schema=_SCHEMA)
_operator_backward = torch.library.custom_op(
    "promptecho::lora_linear_backward", _backward, mutates_args=(), schema=_SCHEMA_BACKWARD
)


def lora_linear(x: torch.Tensor, *layers: AdaptedWeights) -> list[torch.Tensor]:
    """Each layer's result [..., out] for x [..., in]; gradients go to x and the adapters, not to the frozen weights.

    Products are computed in the type of x. Layers with one scale, all with a bias or all without, are one operator.
    """
    weights, biases, a, b, scales = (list(part) for part in zip(*layers, strict=True))
    with_bias = [bias for bias in biases if bias is not None]
    if len(set(scales)) > 1 or len(with_bias) not in (0, len(layers)):
        return [lora_linear(x, layer)[0] for layer in layers]
    return _operator(x, weights, with_bias, a, b, scales[0])[0]


def together(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    """`[layer(x) for layer in layers]`, with the adapters' products together where layers say that they can be: by a
    method `adapted_weights(x)`, which returns None where they can't."""
    found = [layer.adapted_weights(x) if hasattr(layer, "adapted_weights") else None for layer in layers]
    ready = [one for one in found if one is not None]
    return lora_linear(x, *ready) if len(ready) == len(layers) else [layer(x) for layer in layers]


@_operator.register_fake
def _(x, weights, biases, a, b, scale):
    results = [x.new_empty((*x.shape[:-1], weight.shape[0])) for weight in weights]
    return results, x.new_empty((x.numel() // x.shape[-1], sum(one.shape[0] for one in a)))


@_operator_backward.register_fake
def _(gradients, x, weights, a, b, low, scale, of_x):
    g_a = a[0].new_empty((low.shape[1], x.shape[-1]))
    return x.new_empty(x.shape if of_x else (0,)), g_a, [torch.empty_like(one) for one in b]


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, weights, biases, a, b, scale = inputs
    ctx.save_for_backward(x, output[1], *weights, *a, *b)
    ctx.layers, ctx.biases, ctx.scale = len(weights), len(biases), scale
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradients: list, _: Any) -> tuple:
    x, low, *rest = ctx.saved_tensors
    weights, a, b = (rest[start : start + ctx.layers] for start in range(0, len(rest), ctx.layers))
    # Of a result that nothing used there is none.
    found = [
        x.new_zeros((*x.shape[:-1], weight.shape[0])) if gradient is None else gradient
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    of_x = ctx.needs_input_grad[0]
    g_x, g_a, g_b = _operator_backward(found, x, weights, a, b, low, ctx.scale, of_x)
    by_layer = list(g_a.split([one.shape[0] for one in a]))
    return g_x if of_x else None, [None] * ctx.layers, [None] * ctx.biases, by_layer, g_b, None


_operator.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.promptecho.lora_linear)
def _flops(x: torch.Size, weights: list[torch.Size], biases: Any, a: list[torch.Size], *_: Any, **__: Any) -> int:
    return sum(
        2 * (x.numel() // x[-1]) * (out * width + rank * (out + width))
        for (out, width), (rank, _) in zip(weights, a, strict=True)
    )


@register_flop_formula(torch.ops.promptecho.lora_linear_backward)
def _flops_backward(gradients, x, weights, a, b, low, scale, of_x, **_: Any) -> int:
    rows, total = x.numel() // x[-1], 0
    for (out, width), (rank, _) in zip(weights, a, strict=True):
        total += 2 * rows * rank * (2 * out + width) + (2 * rows * width * (out + rank) if of_x else 0)
    return total
