"""Which implementation of attention models take (`compute.attention`), by diffusers' and transformers' own switches.

`auto` touches no switch. `cudnn` is one of torch's own kernels: diffusers asks for it by name, while in transformers,
which has no name for it, `sdpa` leaves the choice to torch.
"""

from __future__ import annotations

from typing import Any

from promptecho.errors import ModelError

# Names of diffusers' backends. Those of FlashAttention load a kernel from the hub: `_flash_3`, of the package, has no
# gradient there.
DIFFUSERS = {"sdpa": "native", "cudnn": "_native_cudnn", "flash3": "_flash_3_hub", "flash4": "flash_4_hub"}
TRANSFORMERS = {"sdpa": "sdpa", "cudnn": "sdpa", "flash3": "flash_attention_3", "flash4": "flash_attention_4"}
GENERATIONS = {  # compute capabilities, by their first number
    "cudnn": (range(8, 100), "an Ampere GPU or a newer one"),
    "flash3": (range(9, 10), "a Hopper GPU (H100, H200, H800)"),
    "flash4": (range(9, 100), "a Hopper or Blackwell GPU"),
}
INSTEAD = "set compute.attention: auto"


def check_attention(kind: str, device: Any) -> None:
    """Refuse what a device can't do, before a model is loaded.

    Raises:
        ModelError: `kind` needs another GPU than `device` is.
    """
    import torch

    if kind not in GENERATIONS:
        return
    majors, needed = GENERATIONS[kind]
    device = torch.device(device)
    if device.type != "cuda":
        raise ModelError(f"compute.attention: {kind} needs {needed}, and this is a {device.type}; {INSTEAD}")
    if torch.cuda.get_device_capability(device)[0] not in majors:
        name = torch.cuda.get_device_name(device)
        raise ModelError(f"compute.attention: {kind} needs {needed}, and this is a {name}; {INSTEAD}")


def use_attention(transformer: Any, kind: str) -> None:
    """Switch a model of diffusers; `auto` leaves it as it is.

    Raises:
        ModelError: a package that `kind` needs is missing, or the model has no such switch.
    """
    if kind == "auto":
        return
    try:
        transformer.set_attention_backend(DIFFUSERS[kind])
    except Exception as error:  # a missing package, an old one, a hub that can't be reached: RuntimeError to OSError
        reason = " ".join(str(error).split())[:200].removesuffix(".")
        raise ModelError(f"compute.attention: {kind} can't be had here: {reason}; install it, or {INSTEAD}") from error


def attention_option(kind: str) -> dict[str, str]:
    """What `from_pretrained` of a model of transformers takes for it; nothing for `auto`."""
    return {} if kind == "auto" else {"attn_implementation": TRANSFORMERS[kind]}
