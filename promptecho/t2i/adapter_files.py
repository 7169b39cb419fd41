"""The file formats that an adapter is saved in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from promptecho.config.families import Family
from promptecho.files import atomic_path, write_json
from promptecho.t2i.comfyui import COMFYUI_FILE, comfyui_bytes, family_note
from promptecho.t2i.diffusers_model import pipeline_class
from promptecho.t2i.lora_files import peft_lora

if TYPE_CHECKING:
    from peft import LoraConfig


def write_adapter(
    folder: Path,
    state: dict[str, torch.Tensor],
    config: LoraConfig,
    family: Family,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write an adapter folder from PEFT's weights by name: for PEFT, for diffusers, and, where the family says how, for
    readers that look for `.alpha` entries, such as ComfyUI; `extra` holds further JSON files by name.

    Raises:
        DataError: the disk is full or not writable.
    """
    written = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    written["inference_mode"] = True
    written["base_model_name_or_path"] = None  # a path of one machine says nothing on another
    layers = {name.removeprefix("base_model.model."): value for name, value in sorted(state.items())}
    keys = ["r", "lora_alpha", "target_modules", "lora_dropout", "bias", "use_rslora"]
    keys += [key for key in ("rank_pattern", "alpha_pattern") if written[key]]
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(dict(sorted(state.items())), temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(written, indent=2, sort_keys=True, default=str)
        (temporary / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
        pipeline_class(family).save_lora_weights(
            str(temporary),
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata={key: written[key] for key in keys},
            safe_serialization=True,
        )
        _sort_metadata(temporary / "pytorch_lora_weights.safetensors")
        if family.comfyui_prefix is not None:
            lora = peft_lora(state, written, folder, folder)
            (temporary / COMFYUI_FILE).write_bytes(comfyui_bytes(lora, family.comfyui_prefix))
        for name, content in {**family_note(family), **(extra or {})}.items():
            write_json(temporary / name, content)


def _sort_metadata(path: Path) -> None:
    """safetensors writes several metadata keys in random order; the same adapter must give the same bytes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
    path.write_bytes(content[:8] + text + content[8 + size :])
