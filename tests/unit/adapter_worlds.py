"""Two tiny transformers, what an adapter of theirs should change, and four ways to find out what it does change."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path

import torch
from adapter_formula import pair
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel, ZImagePipeline, ZImageTransformer2DModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from temp_folder import temp_folder

from promptecho.config.families import family_named
from promptecho.t2i.external import Target, load_target
from promptecho.t2i.lora import load_adapter

Z = ["layers.0.attention.to_q", "layers.0.attention.to_k", "layers.0.attention.to_v", "layers.0.attention.to_out.0",
     "layers.0.feed_forward.w1", "layers.0.adaLN_modulation.0", "noise_refiner.0.attention.to_q",
     "context_refiner.0.feed_forward.w2"]  # fmt: skip
Z_EDGES = ["all_x_embedder.2-1", "all_final_layer.2-1.linear", "all_final_layer.2-1.adaLN_modulation.1",
           "cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2"]  # fmt: skip
QWEN = [
    f"transformer_blocks.0.{name}"
    for name in (
        "attn.to_q",
        "attn.add_k_proj",
        "attn.to_out.0",
        "attn.to_add_out",
        "img_mlp.net.0.proj",
        "txt_mlp.net.2",
        "img_mod.1",
    )
]
QWEN_EDGES = ["img_in", "txt_in", "proj_out", "norm_out.linear", "time_text_embed.timestep_embedder.linear_1"]
PIPELINES = {"zimage": ZImagePipeline, "qwenimage": QwenImagePipeline}


@functools.cache
def _transformer(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if family == "zimage":
        return ZImageTransformer2DModel(
            all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=16, n_layers=1, n_refiner_layers=1,
            n_heads=2, n_kv_heads=2, cap_feat_dim=16, axes_dims=[4, 2, 2], axes_lens=[64, 16, 16],
        )  # fmt: skip
    return QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=1,
        joint_attention_dim=12, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip


def transformer(family: str) -> torch.nn.Module:
    """A fresh one; the same weights each time."""
    return copy.deepcopy(_transformer(family))


@functools.cache
def target(family: str) -> Target:
    """What the project's importer reads of a pipeline's configuration files."""
    folder = temp_folder("adapters-")
    model = _transformer(family)
    model.save_config(folder / "transformer")
    index = {"_class_name": PIPELINES[family].__name__, "transformer": ["diffusers", type(model).__name__]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return load_target(family_named(family), str(folder))


def weights(family: str, names: list[str], rank: int = 4, ranks: dict[str, int] | None = None):
    """(down, up) by module name, in float64."""
    shapes = target(family).linears
    return {name: pair(name, shapes[name], (ranks or {}).get(name, rank)) for name in names}


@torch.no_grad()
def deltas(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the adapters in a model add to its weights, by name."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {
        name.removeprefix("base_model.model."): sum(layer.get_delta_weight(one).double() for one in layer.lora_A)
        for name, layer in layers.items()
    }


def through_peft(family: str, folder: Path) -> dict[str, torch.Tensor]:
    return deltas(load_adapter(transformer(family), folder))


def through_diffusers(family: str, file: Path) -> dict[str, torch.Tensor]:
    """As `pipeline.load_lora_weights` does, without the parts of a pipeline that an adapter does not touch."""
    model, pipeline = transformer(family), PIPELINES[family]
    state, metadata = pipeline.lora_state_dict(str(file.parent), weight_name=file.name, return_lora_metadata=True)
    pipeline.load_lora_into_transformer(state, model, adapter_name="default", metadata=metadata)
    return deltas(model)


# Z-Image's modules as ComfyUI names them; a whole number says which third of the fused weight.
_COMFY = [
    (r"\.attention\.to_q$", ".attention.qkv", 0),
    (r"\.attention\.to_k$", ".attention.qkv", 1),
    (r"\.attention\.to_v$", ".attention.qkv", 2),
    (r"\.attention\.to_out\.0$", ".attention.out", None),
    (r"^all_x_embedder\.2-1$", "x_embedder", None),
    (r"^all_final_layer\.2-1\.", "final_layer.", None),
]


def in_comfyui(family: str, changes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Changes by diffusers' names as changes of the weights that ComfyUI has."""
    made: dict[str, torch.Tensor] = {}
    for name, change in changes.items():
        place, third = name, None
        for pattern, replacement, part in _COMFY if family == "zimage" else ():
            if re.search(pattern, name):
                place, third = re.sub(pattern, replacement, name), part
        if third is None:
            made[place] = change
        else:
            rows = len(change)
            whole = made.setdefault(place, torch.zeros(3 * rows, change.shape[1], dtype=torch.float64))
            whole[third * rows : (third + 1) * rows] = change
    return made


def through_comfyui(family: str, file: Path) -> dict[str, torch.Tensor]:
    """A reader that knows `diffusion_model.` names, lora_down, lora_up and `.alpha`, and nothing else."""
    tensors = load_file(file)
    names = {key.removesuffix(".lora_down.weight") for key in tensors if key.endswith(".lora_down.weight")}
    assert len(tensors) == 3 * len(names)
    changes = {}
    for name in sorted(names):
        down, up = (tensors[f"{name}.lora_{half}.weight"].double() for half in ("down", "up"))
        prefix, _, module = name.partition(".")
        assert prefix == "diffusion_model"
        changes[module] = up @ down * (tensors[f"{name}.alpha"].item() / down.shape[0])
    return in_comfyui(family, changes)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], who: str) -> None:
    """Same modules; strength 1 and what is left over within 1e-3. A module may be absent where nothing is expected."""
    absent = set(expected) - set(found)
    assert not set(found) - set(expected) and not any(expected[name].any() for name in absent), who
    for name, change in found.items():
        wanted = expected[name]
        if not wanted.any():
            assert not change.any(), (who, name)
            continue
        strength = float((change * wanted).sum() / (wanted * wanted).sum())
        rest = float((change - wanted).norm() / wanted.norm())
        assert abs(strength - 1) < 1e-3 and rest < 1e-3, f"{who}: {name} acts at {strength:.4f}, rest {rest:.4f}"
