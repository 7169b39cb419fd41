"""What is no plain LoRA, or is damaged, or would be applied in part: refused in one line that says what is true."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from adapter_worlds import QWEN, Z, target, transformer
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from test_adapter_formats import DOTS, DOWN_UP, MIXED, File, diffusers_metadata, flat, named, peft_model, renamed

from promptecho.errors import ConfigError, DataError
from promptecho.t2i.external import convert_adapter

LYCORIS = Path(__file__).parent / "adapters"
NAN, INF = float("nan"), float("inf")


def also(**tensors: torch.Tensor):
    """An edit: further entries, whose names have `__` for a dot."""
    return lambda made: {**made, **{key.replace("__", "."): value for key, value in tensors.items()}}


def setting(key: str, value: float):
    """An edit: one number of the entry whose name ends so."""

    def edit(tensors):
        name = next(name for name in sorted(tensors) if name.endswith(key))
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value

    return edit


def without(key: str):
    return lambda tensors: {name: value for name, value in tensors.items() if key not in name}


Q = Z[0]
COMFY = ("diffusion_model.{}", DOWN_UP, 8.0)
one, matrix = torch.ones(4), torch.ones(16, 4)
FILES = {
    "DoRA, kohya": (
        File(flat("lora_unet_"), DOWN_UP, 8.0, edit=also(lora_unet_layers_0_attention_to_q__dora_scale=one)),
        "to_q.dora_scale: DoRA, which is not plain LoRA",
    ),
    "DoRA, ComfyUI": (File(*COMFY, edit=also(**{f"diffusion_model.{Q}__dora_scale": one})), "DoRA, which is not plain"),
    "DoRA, diffusers": (
        File(edit=also(**{f"transformer.{Q}__lora_magnitude_vector": one})),
        "DoRA, which is not plain",
    ),
    "DoRA in metadata": (
        File(metadata=diffusers_metadata(r=4, lora_alpha=8, use_dora=True)),
        "use_dora = True is not plain",
    ),
    "LoKr, ai-toolkit": (
        File(
            *COMFY,
            edit=lambda t: {
                f"diffusion_model.{Q}.lokr_w1": torch.ones(4, 4),
                f"diffusion_model.{Q}.lokr_w2": torch.ones(4, 4),
            },
        ),
        "lokr_w1 and 1 more: LoKr",
    ),
    "LoHa beside LoRA": (File(*COMFY, edit=also(**{f"diffusion_model.{Z[1]}__hada_w1_a": matrix})), "hada_w1_a: LoHa"),
    "a middle part": (
        File(*COMFY, edit=also(**{f"diffusion_model.{Q}__lora_mid__weight": torch.ones(4, 4)})),
        "middle .Tucker",
    ),
    "biases, PEFT": (File(edit=also(**{f"transformer.{Q}__lora_B__bias": one})), "lora_B.bias: trained biases"),
    "biases, kohya": (
        File(*COMFY, edit=also(**{f"diffusion_model.{Q}__lora_up__bias": one})),
        "lora_up.bias: trained biases",
    ),
    "diff_b": (File(*COMFY, edit=also(**{f"diffusion_model.{Q}__diff_b": one})), "diff_b: changes of whole weights"),
    "diff of a norm": (
        File(*COMFY, edit=also(**{"diffusion_model.layers__0__ffn_norm1__diff": one})),
        "changes of whole weights",
    ),
    "a norm's weights": (
        File(*COMFY, edit=also(**{"diffusion_model.layers__0__ffn_norm1__w_norm": one})),
        "changes of whole",
    ),
    "text encoder, kohya": (
        File(
            flat("lora_unet_"),
            DOWN_UP,
            edit=also(lora_te_layers_0_q__lora_down__weight=matrix, lora_te_layers_0_q__lora_up__weight=matrix.T),
        ),
        "LoRA of the text encoder, which diffusers leaves out",
    ),
    "text encoder, diffusers": (
        File(edit=also(text_encoder__q__lora_A__weight=matrix, text_encoder__q__lora_B__weight=matrix.T)),
        "LoRA of the text encoder",
    ),
    "text encoder, ComfyUI": (
        File(*COMFY, edit=also(text_encoders__qwen__q__lora_up__weight=matrix)),
        "LoRA of the text encoder",
    ),
    "NaN": (
        File(*COMFY, edit=setting("to_k.lora_down.weight", NAN)),
        "to_k: 1 of the 64 values of lora_A are not finite",
    ),
    "infinite": (File(edit=setting("to_k.lora_B.weight", -INF)), "to_k: 1 of the 64 values of lora_B are not finite"),
    "overflow of float16": (
        File(edit=lambda t: {k: (v * 1e6).half() for k, v in t.items()}),
        "values of lora_[AB] are not finite",
    ),
    "alpha NaN": (File(*COMFY, edit=setting("to_k.alpha", NAN)), "to_k: alpha is nan"),
    "all zero": (File(edit=lambda t: {k: v * ("lora_A" in k) for k, v in t.items()}), "it changes nothing"),
    "alpha zero": (File("diffusion_model.{}", DOWN_UP, 0.0), "it changes nothing"),
    "nothing in it": (File(edit=lambda t: {"x.alpha": torch.tensor(1.0)}), "no weights in it"),
    "half a pair": (File(*COMFY, edit=without("to_k.lora_up")), "to_k has lora_A only; the file is incomplete"),
    "the other half": (File(edit=without("to_k.lora_A")), "to_k has lora_B only; the file is incomplete"),
    "alpha without weights": (
        File(*COMFY, edit=also(**{"diffusion_model.layers__0__feed_forward__w3__alpha": torch.tensor(1.0)})),
        "feed_forward.w3 has an alpha and no weights",
    ),
    "Qwen-Image, alpha without weights": (
        File(
            *COMFY,
            QWEN,
            "qwenimage",
            edit=also(**{"diffusion_model.transformer_blocks__0__attn__to_v__alpha": torch.tensor(1.0)}),
        ),
        "to_v has an alpha and no weights",
    ),
    "two ranks": (
        File(edit=lambda t: {k: v[:3] if "to_q.lora_A" in k else v for k, v in t.items()}),
        "to_q has two ranks: 3 in lora_A, 4",
    ),
    "no elements": (
        File(edit=lambda t: {k: v[:0] if "lora_A" in k else v[:, :0] for k, v in t.items()}),
        "weights without elements",
    ),
    "another width": (
        File(edit=lambda t: {k: v[:, :9] if "w1.lora_A" in k else v for k, v in t.items()}),
        "w1 is 42 x 16 .out x in., the adapter's 42 x 9",
    ),
    "another model's names": (File(edit=renamed("layers.0.", "layers.7.")), "has no linear layer layers.7."),
    "another family": (File(family="qwenimage", names=QWEN), "has no linear layer transformer_blocks.0"),
    "a layer that is no linear one": (
        File(edit=renamed(Q, "layers.0.attention.norm_q", "to_q")),
        "no linear layer .*norm_q",
    ),
    "of a convolution": (
        File(*COMFY, edit=lambda t: {k: v[..., None, None] if v.ndim == 2 else v for k, v in t.items()}),
        r"\[4, 42, 1, 1\].*: not read; only matrices of linear layers are",
    ),
    "int8": (
        File(edit=lambda t: {k: (v * 100).to(torch.int8) for k, v in t.items()}),
        "is int8: quantised weights are not read",
    ),
    "fp8 with scales": (
        File(*COMFY, dtype=torch.float8_e4m3fn, edit=also(**{f"diffusion_model.{Q}__scale_weight": one})),
        "scales of quantised weights",
    ),
    "a whole model": (
        File(edit=lambda t: {f"{Z[0]}.weight": matrix, f"{Z[1]}.weight": matrix, "x.bias": one}),
        "no adapter, but weights of a model",
    ),
    "something unknown": (
        File(edit=also(transformer__x__lora_C__weight=matrix)),
        "x.lora_C.weight .*: not read; only matrices",
    ),
    "half of the names without prefix": (
        File(lambda name: name if "to_q" in name else f"transformer.{name}"),
        "to_q does not start with `transformer.` as others do",
    ),
    "the same module twice": (
        File(edit=lambda t: {**t, **{k.replace("transformer", "diffusion_model"): v for k, v in t.items()}}),
        "is there twice, under two names",
    ),
    "two names of one half": (
        File("diffusion_model.{}", edit=also(**{f"diffusion_model.{Q}__lora_down__weight": matrix.T})),
        "to_q has two down weights",
    ),
    "two adapters": (
        File("{}", ("lora_A.one", "lora_B.one"), edit=renamed(".one.", ".two.", "to_k")),
        "several adapters .* .one, two.",
    ),
    "fused qkv that says something else": (
        File(
            "Z.{}",
            DOTS,
            edit=lambda t: (
                setting("qkv.lora.down.weight", 9.0)(made := named("lora_unet_", True, keep_split=True)(t)) or made
            ),
        ),
        "leaves out .*qkv, and nothing else in the file says",
    ),
    "metadata without prefix": (
        File(metadata={"lora_adapter_metadata": '{"r": 4, "lora_alpha": 8}'}),
        "differ in the prefix",
    ),
    "metadata torn": (File(metadata={"lora_adapter_metadata": '{"r": 4, '}), "lora_adapter_metadata is not JSON"),
    "metadata of another rank": (
        File(metadata=diffusers_metadata(r=8, lora_alpha=8)),
        "has rank 4 in the weights, 8 in the conf",
    ),
    "PEFT's file alone": (
        File("base_model.model.{}"),
        "PEFT's weights without their adapter_config.json, which tells alpha",
    ),
    "alpha given, told": (File(*COMFY, given=8.0), "tells alpha; leave --alpha .* out"),
    "alpha given, told by some": (
        File("diffusion_model.{}", DOWN_UP, {Q: 1.0}, given=8.0),
        "tells alpha for 1 of its 8 pairs, and others take the rest at strength 1; leave --alpha .* out",
    ),
    "alpha given, told by metadata": (
        File(given=8.0, metadata=diffusers_metadata(r=4, lora_alpha=8)),
        "tells alpha; leave",
    ),
    "alpha given, mixed ranks": (
        File(ranks=MIXED, given=8.0),
        "alpha 8 would be another strength for each rank .2 for 5 pairs of rank 4",
    ),
    "alpha given, zero": (File(given=0.0), "alpha 0: it must be a number above 0"),
    "alpha given, not finite": (File(given=NAN), "alpha nan: it must be a number above 0"),
}


def refusal(source: Path, out: Path, family: str = "zimage", alpha: float | None = None) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        convert_adapter(source, out, target(family), alpha=alpha)
    assert "\n" not in str(caught.value) and str(source) in str(caught.value) and not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("case", FILES)
def test_files_are_refused(tmp_path, case):
    file, says = FILES[case]
    path = file.write(tmp_path / "lora.safetensors")
    family = "zimage" if case == "another family" else file.family
    assert_says(refusal(path, tmp_path / "out", family, file.given), says)


def assert_says(text: str, says: str) -> None:
    assert re.search(says, text), text


@pytest.mark.parametrize(
    "kind, says",
    {
        "dora": "DoRA",
        "loha": "LoHa",
        "lokr": "LoKr",
        "oft": "OFT",
        "boft": "OFT",
        "ia3": r"\(IA\)3",
        "glora": "GLoRA",
        "full": "changes of whole weights",
        "tlora": "T-LoRA",
    }.items(),
)
def test_what_lycoris_wrote_is_named(tmp_path, kind, says):
    assert_says(refusal(LYCORIS / f"lycoris-{kind}.safetensors", tmp_path / "out"), f"more: {says}, which is not plain")


def test_what_peft_wrote_is_named(tmp_path):
    """Other kinds by PEFT's own code: as a folder, and their weights as a file alone."""
    kinds = {
        "LoKr": LoKrConfig(r=2, target_modules=Z[:2], init_weights=False),
        "LoHa": LoHaConfig(r=2, target_modules=Z[:2], init_weights=False),
        "OFT": OFTConfig(r=0, oft_block_size=4, target_modules=Z[:2]),
        "(IA)3": IA3Config(target_modules=Z[:2], feedforward_modules=[]),
        "DoRA": LoraConfig(r=2, target_modules=Z[:2], use_dora=True, init_lora_weights=False),
        "biases": LoraConfig(r=2, target_modules=Z[:2], lora_bias=True, init_lora_weights=False),
    }
    for kind, config in kinds.items():
        model = get_peft_model(transformer("zimage"), config)
        folder = tmp_path / kind
        model.save_pretrained(folder)
        text = refusal(folder, tmp_path / "out")
        assert f"peft_type {config.peft_type.value} is not read" in text or "= True is not plain LoRA" in text, text
        save_file(get_peft_model_state_dict(model), tmp_path / "alone.safetensors")
        assert f"{kind}, which is not plain LoRA" in refusal(tmp_path / "alone.safetensors", tmp_path / "out")


def test_peft_folders_that_disagree_with_themselves(tmp_path):
    def folder(name: str, edit=lambda tensors: tensors, **config) -> Path:
        peft_model("zimage", Z).save_pretrained(tmp_path / name)
        path = tmp_path / name / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        weights = tmp_path / name / "adapter_model.safetensors"
        tensors = load_file(weights)
        save_file(edit(tensors) or tensors, weights)
        return tmp_path / name

    out = tmp_path / "out"
    assert f"does not target {Z[5]}, for which there are weights that PEFT leaves out" in refusal(
        folder("a", target_modules=["to_q", "to_k", "to_v", "to_out.0", "w1", "w2"]), out
    )
    assert "for which there are no weights" in refusal(folder("b", without("to_k")), out)
    assert "has an alpha here, and PEFT takes it from" in refusal(
        folder("c", also(**{f"base_model__model__{Q}__alpha": torch.tensor(1.0)})), out
    )
    assert "changes the base weights too" in refusal(folder("d", init_lora_weights="pissa"), out)
    assert "modules_to_save = ['norm'] is not plain LoRA" in refusal(folder("e", modules_to_save=["norm"]), out)
    assert "it changes nothing" in refusal(folder("f", lora_alpha=0), out)
    assert "values of lora_A are not finite" in refusal(folder("g", setting("to_v.lora_A.weight", INF)), out)
    assert "tells alpha; leave --alpha" in refusal(folder("h"), out, alpha=8.0)


@pytest.mark.parametrize("config, says", [
    ({"alpha_pattern": ["to_q"], "rank_pattern": {"(": 4}}, "rank_pattern must map .*; alpha_pattern must map"),
    ({"alpha_pattern": {"to_q": "8"}}, "alpha_pattern must map regular expressions to numbers: take the file"),
    ({"target_modules": "(", "exclude_modules": 5}, "target_modules must be a regular .*; exclude_modules must be"),
    ({"use_rslora": "false", "layers_to_transform": ["a"]}, "layers_to_transform must be .*; use_rslora must be"),
    ({"lora_alpha": "8"}, "r and lora_alpha must be numbers"),
])  # fmt: skip
def test_settings_of_the_wrong_kind(tmp_path, config, says):
    """In a PEFT folder and, written by diffusers, in a file's metadata."""
    peft_model("zimage", Z).save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    assert_says(refusal(tmp_path / "a", tmp_path / "out"), says)
    file = File(metadata=diffusers_metadata(**{"r": 4, "lora_alpha": 8, **config}))
    assert_says(refusal(file.write(tmp_path / "lora.safetensors"), tmp_path / "out"), says)


def test_a_configuration_that_somebody_edited(tmp_path):
    """An editor's byte order mark is no fault; what is torn can't be made by a rule of ours."""
    peft_model("zimage", Z).save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert convert_adapter(tmp_path / "a", tmp_path / "out", target("zimage")).modules == len(Z)
    path.write_text(text[:50])
    says = refusal(tmp_path / "a", tmp_path / "torn")
    assert "not valid JSON" in says and "take it once more from where the adapter is from" in says


def test_a_file_is_known_by_what_it_holds(tmp_path):
    """Names of an older Windows, of the hub's cache (hashes without a suffix), and of other tools."""
    content = File().write(tmp_path / "one.safetensors").read_bytes()
    expected = convert_adapter(tmp_path / "one.safetensors", tmp_path / "expected", target("zimage"))
    for number, name in enumerate(("L.SAFETENSORS", "9f86d081884c7d65", "lora.sft", "folder/L.SafeTensors")):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        made = convert_adapter(path.parent if "/" in name else path, tmp_path / f"out{number}", target("zimage"))
        assert (made.modules, made.alphas) == (expected.modules, expected.alphas)
    (tmp_path / "X.PT").write_bytes(content)
    assert "a pickle, which runs code" in refusal(tmp_path / "X.PT", tmp_path / "out")


def test_files_that_are_none(tmp_path):
    whole = File().write(tmp_path / "whole" / "lora.safetensors").read_bytes()
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({"x": 1}))
    contents = {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n": "a pointer of Git LFS, not the file",
        b"<!DOCTYPE html><html>": "a web page, not the weights",
        pickle.dumps({"x": 1}, protocol=2): "a pickle in spite of its name",
        (tmp_path / "zip").read_bytes(): "a pickle in spite of its name",
        whole[: len(whole) // 2]: "not a readable safetensors file .*download it again",
        whole[:20]: "not a readable safetensors file .*download it again",
        b"": "not a readable safetensors file .*download it again",
    }
    for content, says in contents.items():
        (tmp_path / "lora.safetensors").write_bytes(content)
        assert_says(refusal(tmp_path / "lora.safetensors", tmp_path / "out"), says)
    for name in ("lora.pt", "lora.ckpt", "adapter_model.bin"):
        (tmp_path / name).write_bytes(pickle.dumps({}))
        assert "a pickle, which runs code" in refusal(tmp_path / name, tmp_path / "out")
