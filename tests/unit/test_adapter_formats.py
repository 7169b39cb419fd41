"""Adapter files as different tools write them: each acts at strength 1, or is refused in one line that is true.

What an adapter should change comes from formulas (`adapter_formula.py`), never from a loader. Files of PEFT and
diffusers are written by their own code, those in `adapters/` were by LyCORIS' own; the other tools' keys are
spelt here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_worlds import (
    PIPELINES,
    QWEN,
    QWEN_EDGES,
    Z_EDGES,
    Z,
    assert_same,
    deltas,
    in_comfyui,
    target,
    through_comfyui,
    through_diffusers,
    through_peft,
    transformer,
    weights,
)
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from promptecho.config.families import family_named
from promptecho.t2i.comfyui import COMFYUI_FILE
from promptecho.t2i.external import convert_adapter
from promptecho.t2i.lora import save_adapter, trained_parameters
from promptecho.t2i.lora_files import DIFFUSERS_FILE

torch.set_num_threads(1)
AB, DOWN_UP, DOTS = ("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")
LYCORIS = Path(__file__).parent / "adapters"


def flat(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name.replace(".", "_")


@dataclass
class File:
    """A LoRA file: how a tool names things, and how much each module counts."""

    base: str | Callable[[str], str] = "transformer.{}"
    halves: tuple[str, str] = AB
    alpha: float | dict[str, float] | None = None  # `.alpha` entries: of all modules, of some, of none
    names: list[str] = field(default_factory=lambda: Z)
    family: str = "zimage"
    ranks: dict[str, int] | None = None
    dtype: torch.dtype = torch.float32
    given: float | None = None  # what the person says (--alpha)
    diffusers: bool = True  # diffusers loads the file itself, to the same weights
    metadata: dict[str, str] | None = None
    times: float = 1.0  # what the metadata multiplies
    edit: Callable[[dict[str, torch.Tensor]], Any] = lambda tensors: None

    def tensors(self) -> dict[str, torch.Tensor]:
        made = {}
        for name, halves in weights(self.family, self.names, ranks=self.ranks).items():
            base = self.base(name) if callable(self.base) else self.base.format(name)
            for half, value in zip(self.halves, halves, strict=True):
                made[f"{base}.{half}.weight"] = value.to(self.dtype)
            if (alpha := self.alphas().get(name)) is not None:
                made[f"{base}.alpha"] = torch.tensor(alpha, dtype=torch.bfloat16)
        return made

    def alphas(self) -> dict[str, float]:
        return self.alpha if isinstance(self.alpha, dict) else dict.fromkeys(self.names, self.alpha)

    def expected(self) -> dict[str, torch.Tensor]:
        made = {}
        for name, halves in weights(self.family, self.names, ranks=self.ranks).items():
            down, up = (half.to(self.dtype).double() for half in halves)
            alpha = self.alphas().get(name)
            alpha = self.given if alpha is None else alpha
            made[name] = up @ down * (self.times if alpha is None else self.times * alpha / len(down))
        return made

    def write(self, path: Path) -> Path:
        tensors = self.tensors()
        tensors = self.edit(tensors) or tensors
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()},
            path,
            metadata=self.metadata,
        )
        return path


def with_fused_qkv(tensors: dict[str, torch.Tensor], keep_split: bool = False) -> None:
    """to_q, to_k and to_v as Z-Image's own fused qkv: one down of all their rows, one block-diagonal up."""
    split = {}
    for letter in "qkv":
        found = {key: value for key, value in tensors.items() if key.startswith(f"Z.layers.0.attention.to_{letter}.")}
        split[letter] = list(found.values())
        for key in found:
            del tensors[key]
            if keep_split:
                tensors[key.replace(f"to_{letter}", f"to.{letter}")] = found[key]
    rename = {key: key.replace("to_out.0.", "out.") for key in tensors if "layers.0.attention.to_out" in key}
    for old, new in rename.items():
        tensors[new] = tensors[old] if keep_split else tensors.pop(old)
    down = torch.cat([split[letter][0] for letter in "qkv"])
    up = torch.block_diag(*(split[letter][1] for letter in "qkv"))
    half = ("lora.down", "lora.up") if keep_split else ("lora_A", "lora_B")
    tensors[f"Z.layers.0.attention.qkv.{half[0]}.weight"] = down
    tensors[f"Z.layers.0.attention.qkv.{half[1]}.weight"] = up


def named(prefix: str, flatten: bool = False, **options) -> Callable[[dict[str, torch.Tensor]], dict]:
    """An edit: fuse, then put the names under a prefix."""

    def edit(tensors):
        with_fused_qkv(tensors, **options)
        made = {}
        for key, value in tensors.items():
            base, _, rest = key.removeprefix("Z.").partition(".lora")
            made[f"{prefix}{base.replace('.', '_') if flatten else base}.lora{rest}"] = value
        return made

    return edit


def renamed(old: str, new: str, only: str = "") -> Callable[[dict[str, torch.Tensor]], dict]:
    return lambda tensors: {key.replace(old, new) if only in key else key: value for key, value in tensors.items()}


def diffusers_metadata(**config) -> dict[str, str]:
    config = {"target_modules": Z, **config}
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}


MIXED = {Z[0]: 2, Z[4]: 3, Z[5]: 8}
FILES = {
    "diffusers, no alpha": File(),
    "diffusers, bfloat16": File(dtype=torch.bfloat16),
    "diffusers, alpha given": File(given=8.0, diffusers=False),
    "diffusers, mixed ranks, no alpha": File(ranks=MIXED),
    "diffusers, edges of the model": File(names=[*Z, *Z_EDGES]),
    "diffusers, adapter's name": File(halves=("lora_A.default", "lora_B.default"), diffusers=False),
    "diffusers, metadata and alphas": File(
        "diffusion_model.{}", DOWN_UP, alpha=2.0, times=2.0, metadata=diffusers_metadata(r=4, lora_alpha=8)
    ),
    "diffusers, foreign metadata": File(metadata={"ss_network_alpha": "16", "format": "pt"}),
    "DiffSynth-Studio": File("{}", ("lora_A.default", "lora_B.default")),
    "DiffSynth-Studio, no adapter's name": File("{}", diffusers=False),
    "another adapter's name": File("{}", ("lora_A.style", "lora_B.style"), diffusers=False),
    "ai-toolkit": File("diffusion_model.{}"),
    "ai-toolkit, alpha": File("diffusion_model.{}", alpha=8.0),
    "ai-toolkit, alpha of some": File("diffusion_model.{}", DOWN_UP, alpha={name: 2.0 for name in Z[:5]}),
    "ComfyUI, alpha = 2 rank": File("diffusion_model.{}", DOWN_UP, alpha=8.0),
    "ComfyUI, alpha = 1": File("diffusion_model.{}", DOWN_UP, alpha=1.0),
    "ComfyUI, no alpha": File("diffusion_model.{}", DOWN_UP),
    "ComfyUI, no prefix": File("{}", DOWN_UP, alpha=8.0),
    "ComfyUI, mixed ranks, one alpha": File("diffusion_model.{}", DOWN_UP, alpha=4.0, ranks=MIXED),
    "ComfyUI, alphas of their own": File("diffusion_model.{}", DOWN_UP, alpha=dict(zip(Z, range(1, 9), strict=True))),
    "ComfyUI, one alpha is 0": File("diffusion_model.{}", DOWN_UP, alpha={**dict.fromkeys(Z, 4.0), Z[2]: 0.0}),
    "ComfyUI, negative alpha": File("diffusion_model.{}", DOWN_UP, alpha=-4.0, diffusers=False),
    "ComfyUI, float16": File("diffusion_model.{}", DOWN_UP, alpha=8.0, dtype=torch.float16),
    "ComfyUI, float64": File("diffusion_model.{}", DOWN_UP, alpha=8.0, dtype=torch.float64),
    "ComfyUI, fp8": File("diffusion_model.{}", DOWN_UP, alpha=8.0, dtype=torch.float8_e4m3fn, diffusers=False),
    "ComfyUI, fp8 e5m2": File("diffusion_model.{}", DOWN_UP, dtype=torch.float8_e5m2, diffusers=False),
    "ComfyUI, edges of the model": File("diffusion_model.{}", DOWN_UP, alpha=8.0, names=[*Z, *Z_EDGES]),
    "ComfyUI, alpha of one element": File(
        "diffusion_model.{}", DOWN_UP, alpha=8.0,
        edit=lambda t: {key: value.reshape(1).long() if key.endswith("alpha") else value for key, value in t.items()},
    ),
    "whole checkpoint's prefix": File("model.diffusion_model.{}", DOWN_UP, alpha=8.0, diffusers=False),
    "transformer prefix with alpha": File("transformer.{}", DOWN_UP, alpha=8.0, diffusers=False),
    "transformer prefix, A and B, alpha": File("transformer.{}", alpha=2.0, diffusers=False),
    "kohya": File(flat("lora_unet_"), DOWN_UP, alpha=8.0, names=[*Z, *Z_EDGES]),
    "kohya, no alpha": File(flat("lora_unet_"), DOWN_UP),
    "kohya, alpha of some": File(flat("lora_unet_"), DOWN_UP, alpha={name: 1.0 for name in Z[::2]}),
    "kohya, A and B": File(flat("lora_unet_"), AB, alpha=8.0, diffusers=False),
    "musubi-tuner, fused": File("Z.{}", edit=named("lora_unet_", flatten=True), diffusers=False),
    "diffusion-pipe, fused": File("Z.{}", edit=named("diffusion_model."), diffusers=False),
    "Anime-Z, fused beside split": File("Z.{}", DOTS, edit=named("lora_unet_", True, keep_split=True), diffusers=False),
    "OneTrainer": File(flat("lora_transformer_"), DOWN_UP, alpha=8.0, diffusers=False),
    "SimpleTuner LyCORIS": File(flat("lycoris_"), DOWN_UP, alpha=8.0, diffusers=False),
    "kohya and dotted names mixed": File(
        lambda name: flat("lora_unet_")(name) if "attention" in name else f"diffusion_model.{name}", DOWN_UP, alpha=8.0,
        diffusers=False,
    ),
    "kohya and diffusion_model mixed, attention": File(
        lambda name: flat("lora_unet_")(name) if "to_q" in name else f"diffusion_model.{name}", DOWN_UP, names=Z[:3]
    ),
    "diffusion_model and bare names mixed": File(
        lambda name: name if "to_q" in name else f"diffusion_model.{name}", DOWN_UP, alpha=8.0
    ),
    "A/B and down/up mixed": File("diffusion_model.{}", alpha=8.0, diffusers=False, edit=lambda tensors: {
        (key.replace("lora_A", "lora_down").replace("lora_B", "lora_up") if "to_q" in key else key): value
        for key, value in tensors.items()}),
    "PEFT's file alone, alpha given": File("base_model.model.{}", given=8.0, diffusers=False),
    "PEFT's names with alphas": File("base_model.model.{}", alpha=8.0, diffusers=False),
    "Qwen-Image, diffusers": File(family="qwenimage", names=[*QWEN, *QWEN_EDGES]),
    "Qwen-Image, DiffSynth-Studio": File("{}", ("lora_A.default", "lora_B.default"), family="qwenimage", names=QWEN),
    "Qwen-Image, ai-toolkit": File("diffusion_model.{}", alpha=8.0, family="qwenimage", names=QWEN),
    "Qwen-Image, alpha of some": File("diffusion_model.{}", DOWN_UP, {QWEN[0]: 1.0}, QWEN, "qwenimage"),
    "Qwen-Image, bare names, alpha": File("{}", DOWN_UP, 8.0, QWEN, "qwenimage", dtype=torch.bfloat16),
    "Qwen-Image, kohya": File(flat("lora_unet_"), DOWN_UP, 8.0, [*QWEN, *QWEN_EDGES], "qwenimage"),
    "Qwen-Image, mixed ranks": File(family="qwenimage", names=QWEN, ranks={QWEN[1]: 7, QWEN[2]: 2}),
    "Qwen-Image, SimpleTuner LyCORIS": File(flat("lycoris_"), DOWN_UP, 2.0, QWEN, "qwenimage", diffusers=False),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_act_at_strength_one(tmp_path, case):
    file = FILES[case]
    path = file.write(tmp_path / "in" / "lora.safetensors")
    imported = convert_adapter(path, tmp_path / "out", target(file.family), alpha=file.given)
    assert_same(through_peft(file.family, tmp_path / "out"), file.expected(), "PEFT, as images are generated")
    in_comfy = in_comfyui(file.family, file.expected())
    assert_same(through_comfyui(file.family, tmp_path / "out" / COMFYUI_FILE), in_comfy, "ComfyUI's keys")
    if file.diffusers:
        assert_same(through_diffusers(file.family, path), file.expected(), "diffusers, the file itself")
    told = file.given is not None or "metadata and" in case or set(file.alphas().values()) - {None}
    assert bool(imported.note) == (not told or len(file.alphas()) < len(file.names))
    assert imported.note == "" or "strength 1 there, as diffusers takes it" in imported.describe()


def test_what_lycoris_wrote_acts_at_strength_one(tmp_path):
    """Alpha 3 and rank 2; LyCORIS' own merge gave this change when the file was written."""
    names = ["layers.0.attention.to_q", "layers.0.attention.to_out.0"]
    convert_adapter(LYCORIS / "lycoris-locon.safetensors", tmp_path / "out", target("zimage"))
    pairs = weights("zimage", names, rank=2)
    expected = {name: up @ down * 1.5 for name, (down, up) in pairs.items()}
    assert_same(through_peft("zimage", tmp_path / "out"), expected, "PEFT, as images are generated")


def peft_model(family: str, names: list[str], **options) -> torch.nn.Module:
    """PEFT's own model with weights by formula."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": names, "init_lora_weights": True, **options})
    model = get_peft_model(transformer(family), config)
    for name, (down, up) in weights(family, names, ranks=options.get("rank_pattern")).items():
        layer = model.base_model.model.get_submodule(name)
        layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = down.float(), up.float()
    return model


# Options of PEFT's configuration, and each module's strength by its rank.
OPTIONS = {
    "alpha = 2 rank": ({}, lambda name, rank: 8 / rank),
    "alpha = rank": ({"lora_alpha": 4}, lambda name, rank: 1.0),
    "alpha = 3": ({"lora_alpha": 3}, lambda name, rank: 3 / rank),
    "negative": ({"lora_alpha": -3}, lambda name, rank: -3 / rank),
    "rank-stabilised": ({"use_rslora": True}, lambda name, rank: 8 / rank**0.5),
    "patterns": ({"rank_pattern": True, "alpha_pattern": True}, lambda name, rank: (5 if rank == 2 else 8) / rank),
    "patterns, rank-stabilised": (
        {"rank_pattern": True, "alpha_pattern": True, "use_rslora": True},
        lambda name, rank: (5 if rank == 2 else 8) / rank**0.5,
    ),
}


def make(case: str, family: str):
    """PEFT's model of a case, and what it changes."""
    options, strength = OPTIONS[case]
    names = Z if family == "zimage" else QWEN
    options = dict(options)
    if options.pop("rank_pattern", None):
        options |= {"rank_pattern": {names[1]: 2}, "alpha_pattern": {names[1]: 5}}
    pairs = weights(family, names, ranks=options.get("rank_pattern"))
    expected = {name: up @ down * strength(name, len(down)) for name, (down, up) in pairs.items()}
    return peft_model(family, names, **options), expected


@pytest.mark.parametrize("family", sorted(PIPELINES))
@pytest.mark.parametrize("case", OPTIONS)
def test_our_own_adapters_act_at_strength_one_in_three_formats(tmp_path, case, family):
    model, expected = make(case, family)
    for name in ("adapter", "again"):
        save_adapter(model, trained_parameters(model), tmp_path / name, family_named(family))
    assert_same(through_peft(family, tmp_path / "adapter"), expected, "PEFT")
    assert_same(through_diffusers(family, tmp_path / "adapter" / DIFFUSERS_FILE), expected, "diffusers")
    assert_same(through_diffusers(family, tmp_path / "adapter" / COMFYUI_FILE), expected, "diffusers, ComfyUI's file")
    found = through_comfyui(family, tmp_path / "adapter" / COMFYUI_FILE)
    assert_same(found, in_comfyui(family, expected), "ComfyUI's keys")
    for file in (tmp_path / "adapter").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    "case, family",
    [*((case, "zimage") for case in OPTIONS), ("alpha = 2 rank", "qwenimage"), ("patterns", "qwenimage")],
)
def test_what_peft_and_diffusers_write_acts_at_strength_one(tmp_path, case, family):
    """By their own code: PEFT's folder, also with an adapter's name in the keys, a pipeline's file, a model's file."""
    model, expected = make(case, family)
    model.save_pretrained(tmp_path / "PEFT")
    state, config = get_peft_model_state_dict(model), model.peft_config["default"].to_dict()
    (tmp_path / "PEFT, adapter's name").mkdir()
    settings = (tmp_path / "PEFT" / "adapter_config.json").read_bytes()
    (tmp_path / "PEFT, adapter's name" / "adapter_config.json").write_bytes(settings)
    named = {key.replace(".weight", ".default.weight"): value.contiguous() for key, value in state.items()}
    save_file(named, tmp_path / "PEFT, adapter's name" / "adapter_model.safetensors")
    keys = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
    metadata = {key: config[key] for key in keys} | {"target_modules": sorted(config["target_modules"])}
    layers = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    pipeline = PIPELINES[family]
    pipeline.save_lora_weights(
        str(tmp_path / "pipeline"), transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
    )
    other = transformer(family)
    state, read = pipeline.lora_state_dict(str(tmp_path / "pipeline"), return_lora_metadata=True)
    pipeline.load_lora_into_transformer(state, other, adapter_name="default", metadata=read)
    assert_same(deltas(other), expected, "diffusers")
    other.save_lora_adapter(str(tmp_path / "model"))
    for tool in ("PEFT", "PEFT, adapter's name", "pipeline", "model"):
        imported = convert_adapter(tmp_path / tool, tmp_path / "out" / tool, target(family))
        assert imported.note == ""
        found = through_comfyui(family, tmp_path / "out" / tool / COMFYUI_FILE)
        assert_same(found, in_comfyui(family, expected), tool)
