"""Our adapters as ComfyUI reads them.

Readers that know `.alpha` entries only (ComfyUI, many trainers) take strength 1 for PEFT's and diffusers' files, whose
alpha is in the configuration or the metadata. Here it stands beside each pair.

The names are a prefix that the family says, and diffusers' name of the module. ComfyUI takes `diffusion_model.` for
Z-Image and Qwen-Image (`model_lora_keys_unet` in comfy/lora.py of Comfy-Org/ComfyUI, read at commit 17358c8):
Qwen-Image's modules have the same names there; Z-Image's go through `z_image_to_diffusers` (comfy/utils.py), which puts
to_q, to_k and to_v into the thirds of its fused qkv, to_out.0 into out, and the embedders and the final layer of patch
size 2 into theirs. So each pair keeps its rank, and diffusers reads the same file. Strength is alpha / rank
(comfy/weight_adapter/lora.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from promptecho.config.families import Family
from promptecho.errors import ConfigError, DataError
from promptecho.files import atomic_path, read_json
from promptecho.t2i.lora_files import PEFT_CONFIG, PEFT_FILE, Lora, read_peft

COMFYUI_FILE = "comfyui_lora.safetensors"
PREFIX = "diffusion_model."  # where the adapter's folder says nothing else
NOTE = "family.json"


def family_note(family: Family) -> dict[str, dict[str, Any]]:
    """The file, by its name, in which an adapter's folder says its family; none where `export` needs none."""
    if family.comfyui_prefix == PREFIX:
        return {}
    return {NOTE: {"family": family.name, "version": family.version, "comfyui_prefix": family.comfyui_prefix}}


def comfyui_bytes(lora: Lora, prefix: str = PREFIX) -> bytes:
    """`lora` as the bytes of a safetensors file: the same adapter is the same bytes."""
    tensors = {}
    for name, pair in sorted(lora.pairs.items()):
        key = f"{prefix}{name}"
        tensors[f"{key}.lora_down.weight"] = pair.down.contiguous()
        alpha = lora.strength(name) * pair.rank
        # A sign goes into the weights: diffusers' conversion of a negative alpha never ends.
        tensors[f"{key}.lora_up.weight"] = (-pair.up if alpha < 0 else pair.up).contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(abs(alpha), dtype=torch.float32)
    return save(tensors, metadata={"format": "pt"})


def export(folders: Sequence[Path], out: Path | None = None) -> list[dict[str, Any]]:
    """Write the file of adapters that exist, into their folders or, for a single one, to `out`.

    A folder keeps its time: what was made of the adapter is not made again because a file stands beside it.

    Raises:
        ConfigError: `out` with several folders, or in place of another file of the adapter.
        DataError: no adapter there (names all such folders), damaged, of a family that says no names for ComfyUI, or
            the disk is full or not writable.
    """
    if out is not None and len(folders) != 1:
        raise ConfigError(f"--out {out} is one file, and there are {len(folders)} folders; leave it out, or give one")
    if out is not None and out.name in (PEFT_CONFIG, PEFT_FILE):
        raise ConfigError(f"--out {out}: that is the name of a file of the adapter itself; give another")
    found = [next((f for f in (folder, folder / "adapter") if (f / PEFT_CONFIG).is_file()), None) for folder in folders]
    if none := [str(folder) for folder, adapter in zip(folders, found, strict=True) if adapter is None]:
        raise DataError(f"{', '.join(none)}: no {PEFT_CONFIG} there or in adapter/; give runs/R/N or runs/R/N/adapter")
    facts = []
    for adapter in (adapter for adapter in found if adapter is not None):
        lora, file = read_peft(adapter), out or adapter / COMFYUI_FILE
        content = comfyui_bytes(lora, _prefix(adapter))
        written = not (file.is_file() and file.read_bytes() == content)
        if written:
            before = file.parent.stat() if file.parent.is_dir() else None
            with atomic_path(file) as temporary:
                temporary.write_bytes(content)
            if out is None and before is not None:
                os.utime(file.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        facts.append({"file": str(file), "modules": len(lora.pairs), "written": written})
    return facts


def _prefix(adapter: Path) -> str:
    if not (adapter / NOTE).is_file():
        return PREFIX
    note = read_json(adapter / NOTE)
    prefix = note.get("comfyui_prefix") if isinstance(note, dict) else None
    if not isinstance(prefix, str):
        raise DataError(f"{adapter / NOTE}: has no comfyui_prefix: what ComfyUI calls these layers is not known here")
    return prefix
