"""Deep models traced in seconds: a copy of a few layers, traced at two depths, tells what one more layer adds.

FLOPs and bytes of weights grow by exactly the same number with each layer. Peak memory does so too, as long as the peak
stays at the same moment of the pass. With layers of a size that matters it does; tests compare with models that are
traced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from promptecho.plan.trace import Cost, trace

NAMES_OF_PLACE = {"layer_idx", "layer_id"}


class Deep:
    """A model of which only the first layers are kept, and numbers about it as if all were there.

    Args:
        model: changed in place. Its longest list of layers is cut to `shallow` + 1 of them if they differ in nothing
            but their place; else it stays whole.
        shallow: layers beyond so many must do the same as each other.
    """

    def __init__(self, model: nn.Module, shallow: int) -> None:
        self.shallow, self.more = shallow, 0
        self.layers: nn.ModuleList | None = None
        layers = repeated_layers(model)
        if layers is not None and len(layers) > shallow + 1:
            self.layers, self.more = layers, len(layers) - shallow - 1
            layers._modules = _first(layers, shallow + 1)

    def trace(self, code: Callable[[], Any]) -> Cost:
        """`trace(code)` for code that runs the model."""
        return trace_deep([self], code)

    def number(self, count: Callable[[], int]) -> int:
        """A number that grows by the same with each layer, such as bytes of weights."""
        second = count()
        if self.layers is None:
            return second
        with self._shallow(self.layers):
            return second + self.more * (second - count())

    @contextmanager
    def _shallow(self, layers: nn.ModuleList) -> Iterator[None]:
        kept = layers._modules
        layers._modules = _first(layers, self.shallow)
        try:
            yield
        finally:
            layers._modules = kept


def trace_deep(models: Sequence[Deep], code: Callable[[], Any]) -> Cost:
    """`trace(code)` for code that runs all of `models`."""
    whole = trace(code)
    flops, peak = dict(whole.flops), whole.peak
    for deep in models:
        if deep.layers is not None:
            with deep._shallow(deep.layers):
                less = trace(code)
            flops = {kind: n + deep.more * (whole.flops[kind] - less.flops.get(kind, 0)) for kind, n in flops.items()}
            peak += deep.more * (whole.peak - less.peak)
    return Cost(flops, peak)


def repeated_layers(model: nn.Module) -> nn.ModuleList | None:
    """The list of layers with the most weights; None if its members differ in more than their place."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    longest = max(lists, key=lambda one: sum(p.numel() for p in one.parameters()), default=None)
    return longest if longest is not None and len({_kind(layer) for layer in longest}) == 1 else None


def _first(layers: nn.ModuleList, n: int) -> dict[str, nn.Module]:
    return dict(list(layers._modules.items())[:n])


def _kind(layer: nn.Module) -> tuple:
    """What a layer is, but for its place: classes, shapes, settings."""
    facts: list[Any] = []
    for name, module in layer.named_modules():
        settings = [
            (key, value) for key, value in sorted(vars(module).items())
            if key not in NAMES_OF_PLACE and isinstance(value, (bool, int, float, str))
        ]  # fmt: skip
        facts.append((name, type(module).__name__, tuple(settings)))
    facts += [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in layer.named_parameters()]
    return tuple(facts)
