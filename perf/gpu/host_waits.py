"""Count what a pass asks of a device, on any machine: calls of operators, copies, and reads that wait for the device.

On a GPU a read (`.item()`, `.tolist()`, a tensor as a condition, an index of truth values) waits until all work so far
is done. On a CPU no profiler shows it, so inputs are marked as lying on the device; marks pass to all that is computed
from them, and a read of a marked tensor counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

READS = {
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "masked_select", "cpu", "numpy",
    "unique", "unique_consecutive",
}  # fmt: skip


class OnDevice(torch.Tensor):
    """A marked tensor."""

    reads: Counter[str] = Counter()
    copied: Counter[str] = Counter()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        index = args[1] if name in ("__getitem__", "__setitem__") else None
        parts = index if isinstance(index, tuple) else (index,)
        if any(torch.is_tensor(part) and part.dtype == torch.bool for part in parts):
            cls.reads["boolean index"] += 1
        elif name in READS:
            cls.reads[name.strip("_")] += 1
        result = super().__torch_function__(function, types, args, kwargs)
        if name in ("cpu", "numpy", "tolist", "item"):
            return result.as_subclass(torch.Tensor) if torch.is_tensor(result) else result
        return result


def mark(values: torch.Tensor) -> torch.Tensor:
    """`values` as copied to the device."""
    OnDevice.copied["copies"] += 1
    OnDevice.copied["bytes"] += values.nbytes
    return values.as_subclass(OnDevice)


@contextmanager
def counting() -> Iterator[None]:
    OnDevice.reads.clear()
    OnDevice.copied.clear()
    yield


def counts(code: Callable[[], Any], model: torch.nn.Module) -> dict[str, Any]:
    """Of one run of `code`, whose inputs are marked by `mark`: reads by kind, copies to the device and their bytes; of
    another one: operators that Python called, and FLOPs, those of the language-model head apart."""
    with counting():
        code()
        facts: dict[str, Any] = {"reads": dict(OnDevice.reads), "copies": dict(OnDevice.copied)}
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        code()
    called = [event for event in profiler.events() if event.name.startswith("aten::") and event.cpu_parent is None]
    facts["operators"] = len(called)
    facts["profiled"] = {
        name: sum(event.name == f"aten::{name}" for event in profiler.events())
        for name in ("_local_scalar_dense", "item", "nonzero")
    }
    with FlopCounterMode(display=False) as counter:
        code()
    head = [sum(of.values()) for name, of in counter.get_flop_counts().items() if name.endswith("lm_head")]
    return facts | {"flops": counter.get_total_flops(), "head_flops": head[0] if head else 0}
