"""What one block of Z-Image launches, reads and writes for its adapter: PEFT's written-out sum, one operator for each
layer, and one for the layers that read the same input (q, k and v; the two under the SwiGLU).

    python perf/lora_kernels.py

Counts the kernels (torch.profiler, a block of real width run on a few tokens) and the bytes that they read and write at
real size (on torch's meta device, where nothing is computed), of one forward pass without gradient and one with its
backward pass, in bfloat16 and eager. Views cost nothing; an operator reads its inputs and writes its results. Bytes are
in units of one activation [batch, tokens, 3840].
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from promptecho.plan.trace import gpu_attention, tensors_in
from promptecho.t2i import lora, lora_linear
from promptecho.t2i.zimage.shared_input import share_inputs

WIDTH, HEADS, RANK = 3840, 30, 64
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"]
PROFILED = 32  # tokens
PRODUCTS = {"mm", "addmm", "addmm_", "bmm"}
PASSES = ("forward", "forward and backward")
WAYS = ("written out", "an operator for each layer", "one for each input")
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "_unsafe_view", "lift_fresh"}


class Bytes(TorchDispatchMode):
    """Bytes that operators read and write, by name; inside of our own operator, too."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inside = {
            torch.ops.promptecho.lora_linear.default: lora_linear._forward,
            torch.ops.promptecho.lora_linear_backward.default: lora_linear._backward,
        }
        if function in inside:
            with self:
                return inside[function](*args, **(kwargs or {}))
        with self:  # what torch computes by others, such as linear by mm
            result = function.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if not view and name not in FREE:
            self.kernels[name] += 1
            self.bytes[name] += sum(_size(tensor) for tensor in [*tensors_in(args), *tensors_in(result)])
        return result


def _size(tensor: torch.Tensor) -> int:
    """Bytes that are touched: of an expanded tensor those that exist."""
    numbers = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= length if stride else 1
    return numbers * tensor.element_size()


@functools.cache
def adapted_block(device: str, way: str) -> torch.nn.Module:
    """A block with random weights and an adapter in bfloat16, computed in one of the `WAYS`."""
    torch.manual_seed(0)
    with torch.device(device):
        block: torch.nn.Module = (
            ZImageTransformerBlock(0, WIDTH, HEADS, HEADS, 1e-5, True).to(torch.bfloat16).requires_grad_(False)
        )
    options: Any = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": TARGETS}
    model = lora._computing_as_the_base(get_peft_model(torch.nn.ModuleDict({"block": block}), LoraConfig(**options)))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        if way == "written out":
            layer.__class__ = PeftLinear
    if way == "one for each input":
        share_inputs(model)
    return model.base_model.model["block"]


def passes(block: torch.nn.Module, batch: int, tokens: int, device: str) -> dict[str, Any]:
    """The two passes that are counted, by name."""
    x = torch.randn(batch, tokens, WIDTH, device=device, dtype=torch.bfloat16)
    freqs = torch.empty(batch, tokens, 64, dtype=torch.complex64, device=device).fill_(1)
    modulation = torch.randn(batch, 256, device=device, dtype=torch.bfloat16)

    def forward() -> None:
        with torch.no_grad():
            block(x, None, freqs, modulation)

    def update() -> None:
        block(x.clone().requires_grad_(), None, freqs, modulation).sum().backward()

    return {"forward": forward, "forward and backward": update}


def kernels_of(device: str, tokens: int, which: str, way: str) -> int:
    """Kernels of a pass by torch.profiler: operators of the lowest level that make or change a tensor."""
    code = passes(adapted_block(device, way), 1, tokens, device)[which]
    code()  # gradients are there from now on
    with Bytes() as tally:
        code()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        code()
    found = {one.key.removeprefix("aten::"): one.count for one in seen.key_averages()}
    return sum(found.get(name, 0) for name in tally.kernels)


def traffic(batch: int, tokens: int, which: str, way: str) -> tuple[float, float]:
    """Units that (element-wise kernels, matrix products and attention) of a pass read and write, without computing."""
    code = passes(adapted_block("meta", way), batch, tokens, "meta")[which]
    with gpu_attention():
        code()
        with Bytes() as tally:
            code()
    unit = 2 * batch * tokens * WIDTH
    products = sum(size for name, size in tally.bytes.items() if name in PRODUCTS or "attention" in name)
    return (sum(tally.bytes.values()) - products) / unit, products / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where kernels are counted")
    parser.add_argument("--tokens", type=int, default=4384, help="of an image of 1024 pixels with its prompt")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--pass", dest="which", choices=PASSES, action="append", help="which; default: both")
    options = parser.parse_args()
    print("| Pass | Adapter | Kernels | Units, element-wise | Units, products and attention |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in options.which or PASSES:
        for way in WAYS:
            kernels = kernels_of(options.device, PROFILED, name, way)
            others, products = traffic(options.batch_size, options.tokens, name, way)
            print(f"| {name} | {way} | {kernels} | {others:.1f} | {products:.1f} |", flush=True)


if __name__ == "__main__":
    main()
