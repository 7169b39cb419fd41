"""Adapters from elsewhere: every format acts as the adapter that it was saved from, and what does not fit is named."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_t2i
import torch
from hub_server import Hub
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_experiment import Experiment
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config.families import family_named
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_json
from promptecho.t2i.comfyui import COMFYUI_FILE, export
from promptecho.t2i.external import convert_adapter, load_target, locate_adapter
from promptecho.t2i.lora import load_adapter
from promptecho.t2i.lora_files import DIFFUSERS_FILE
from promptecho.t2i.registry import load_family
from promptecho.train.data import normal

torch.set_num_threads(1)
MODULES = ["to_q", "to_out.0", "feed_forward.w1"]


def family():
    return load_family("zimage", str(tiny_t2i.shared_folder()))


@functools.cache
def target():
    return load_target(family_named("zimage"), str(tiny_t2i.shared_folder()))


def latents(model, transformer) -> torch.Tensor:
    """What two images' latents become with this transformer."""
    model.transformer = transformer
    noise = torch.stack([normal(model.latent_shape(32, 32), 3, "noise", k) for k in range(2)])
    cond = model.encode_prompts(["a red circle", "two blue squares"])
    with torch.no_grad():
        return model.sample(noise, cond, num_inference_steps=2, guidance_scale=1.0)


class Trained:
    """An adapter with random weights, saved in every format, and what it makes of noise."""

    def __init__(self, folder: Path, **options):
        self.folder, model = folder, family()
        self.base = latents(model, model.transformer)
        options = {"r": 4, "lora_alpha": 8, "target_modules": MODULES, **options}
        adapted = get_peft_model(model.transformer, LoraConfig(**options))
        generator = torch.Generator().manual_seed(0)
        for _, parameter in sorted(adapted.named_parameters()):
            if parameter.requires_grad:
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        self.expected = latents(model, adapted.eval())
        adapted.save_pretrained(folder / "peft")
        self.layers = {
            name.removeprefix("base_model.model."): value for name, value in get_peft_model_state_dict(adapted).items()
        }
        self.pipeline_class = type(model.pipeline)
        keys = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora")
        config = adapted.peft_config["default"].to_dict()
        self.save("diffusers", {key: config[key] for key in keys})
        self.save("plain", None)

    def save(self, name: str, metadata: dict | None) -> Path:
        self.pipeline_class.save_lora_weights(
            str(self.folder / name), transformer_lora_layers=dict(self.layers),
            transformer_lora_adapter_metadata=metadata and {
                key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()
            },
        )  # fmt: skip
        return self.folder / name

    def acts_as(self, out: Path) -> bool:
        """The imported adapter by both loaders: this project's, and diffusers' own."""
        ours = family()
        theirs = family()
        theirs.pipeline.load_lora_weights(out, weight_name="pytorch_lora_weights.safetensors")
        found = [latents(ours, load_adapter(ours.transformer, out)), latents(theirs, theirs.pipeline.transformer)]
        assert (self.expected - self.base).abs().max() > 0.05
        return all(torch.allclose(latent, self.expected, atol=1e-4) for latent in found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("form", ["peft", "diffusers"])
def test_both_formats_act_as_the_original(trained, tmp_path, form):
    imported = convert_adapter(trained.folder / form, tmp_path / "adapter", target())
    assert (imported.ranks, imported.alphas) == ({"4": imported.modules}, {"8": imported.modules})
    assert trained.acts_as(tmp_path / "adapter")
    record = read_json(tmp_path / "adapter" / "source.json")
    assert record["source"] == str(trained.folder / form) and record["modules"] == imported.modules > 4


def test_a_file_of_another_trainer_with_alphas(trained, tmp_path):
    """Names as ComfyUI's trainers write them; alpha beside each pair, in half precision as usual."""
    tensors = {}
    for name, value in trained.layers.items():
        base = f"diffusion_model.{name.rsplit('.lora_', 1)[0]}"
        half = "lora_down" if ".lora_A." in name else "lora_up"
        tensors[f"{base}.{half}.weight"] = value.contiguous()
        tensors[f"{base}.alpha"] = torch.tensor(8.0, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / "some_name.safetensors")
    imported = convert_adapter(tmp_path / "some_name.safetensors", tmp_path / "adapter", target())
    assert imported.alphas == {"8": imported.modules} and imported.form == "LoRA file"
    assert trained.acts_as(tmp_path / "adapter")


def test_alpha_that_the_file_does_not_tell_is_the_rank_or_given(trained, tmp_path):
    imported = convert_adapter(trained.folder / "plain", tmp_path / "adapter", target())
    assert "alpha 4 (no alpha in it: strength 1 there, as diffusers takes it)" in imported.describe()
    assert not trained.acts_as(tmp_path / "adapter")
    imported = convert_adapter(trained.folder / "plain", tmp_path / "adapter", target(), alpha=8)
    assert "alpha 8, " in imported.describe() and trained.acts_as(tmp_path / "adapter")


def changed(trained: Trained, folder: Path, *, config: dict | None = None, rename=None, drop=None) -> Path:
    """A copy of the PEFT folder with other keys in its configuration, or other weights."""
    shutil.copytree(trained.folder / "peft", folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {(rename or (lambda name: name))(k): v for k, v in tensors.items() if drop is None or drop not in k}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


Q0 = "layers.0.attention.to_q"
MISFITS = {
    "unknown module": ({"rename": lambda k: k.replace("layers.1.", "layers.9.")}, "has no linear layer layers.9."),
    "missing module": ({"drop": f"{Q0}."}, f"targets .*{Q0}, for which there are no weights"),
    "half a pair": ({"drop": f".{Q0}.lora_A"}, "has lora_B only"),
    "not LoRA": ({"rename": lambda k: k.replace("lora_A", "lokr_w1")}, "lokr_w1.*: LoKr, which is not plain LoRA"),
    "wrong rank": ({"config": {"r": 8}}, "has rank 4 in the weights, 8 in the configuration"),
    "DoRA": ({"config": {"use_dora": True}}, "use_dora = True is not plain LoRA"),
    "something new": ({"config": {"use_something_new": {"a": 1}}}, "use_something_new = .* is not plain LoRA"),
    "biases": ({"config": {"bias": "all"}}, "trained biases are not read"),
    "pissa": ({"config": {"init_lora_weights": "pissa"}}, "changes the base weights"),
    "another method": ({"config": {"peft_type": "LOKR"}}, "peft_type LOKR is not read"),
    "no alpha": ({"config": {"lora_alpha": None}}, "r and lora_alpha must be numbers"),
}


@pytest.mark.parametrize("case", sorted(MISFITS))
def test_what_does_not_fit_is_named(trained, tmp_path, case):
    changes, says = MISFITS[case]
    with pytest.raises(DataError, match=says) as caught:
        convert_adapter(changed(trained, tmp_path / "source", **changes), tmp_path / "out", target())
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_an_adapter_of_another_width_is_named(trained, tmp_path):
    other = load_target(family_named("zimage"), str(tiny_t2i.build(tmp_path / "t2i", dim=64)))
    with pytest.raises(DataError, match="context_refiner.* is .* .out x in., the adapter's"):
        convert_adapter(trained.folder / "peft", tmp_path / "out", other)


def test_pickles_and_unclear_folders_are_refused(trained, tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    for source in (tmp_path, tmp_path / "adapter_model.bin"):
        with pytest.raises(DataError, match="adapter_model.bin: a pickle, which runs code"):
            convert_adapter(source, tmp_path / "out", target())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no adapter in it; expected adapter_config.json"):
        convert_adapter(tmp_path / "empty", tmp_path / "out", target())
    for name in ("a", "b"):
        (tmp_path / "empty" / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="several weight files .a.safetensors, b.safetensors."):
        convert_adapter(tmp_path / "empty", tmp_path / "out", target())
    with pytest.raises(DataError, match="a.safetensors: not a readable safetensors file"):
        convert_adapter(tmp_path / "empty" / "a.safetensors", tmp_path / "out", target())
    with pytest.raises(ModelError, match="cannot read the pipeline's configuration"):
        load_target(family_named("zimage"), str(tmp_path))


def test_a_path_is_taken_as_it_is(trained, tmp_path):
    assert locate_adapter(str(trained.folder / "peft")) == trained.folder / "peft"
    with pytest.raises(ConfigError, match="a folder has no revision .main."):
        locate_adapter(str(trained.folder / "peft"), tmp_path, "main")
    with pytest.raises(DataError, match="no such folder or file, and no hub id"):
        locate_adapter(str(tmp_path / "nowhere"))


def test_a_hub_id_downloads_the_adapter_files_and_nothing_else(trained, tmp_path):
    files = {path.name: path.read_bytes() for path in (trained.folder / "peft").iterdir()}
    files = {**files, "model.safetensors": b"huge", "adapter_model.bin": b"pickle"}
    with Hub({"owner/name": files}) as hub:
        found = locate_adapter("owner/name", tmp_path / "cache", "main", endpoint=hub.url)
    assert sorted(path.name for path in found.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert set(hub.downloads()) == {"adapter_config.json", "adapter_model.safetensors"}
    imported = convert_adapter(found, tmp_path / "adapter", target(), origin="owner/name")
    assert (imported.source, imported.revision) == ("owner/name", hub.commit("owner/name"))
    assert trained.acts_as(tmp_path / "adapter")
    # Without network, what was downloaded is still there.
    assert locate_adapter("owner/name", tmp_path / "cache", "main", endpoint=hub.url) == found
    with pytest.raises(DataError, match="owner/other: no such folder, and the hub does not give it") as caught:
        locate_adapter("owner/other", tmp_path / "cache", endpoint=hub.url)
    assert "\n" not in str(caught.value)


def test_a_hub_repository_of_pickles_is_refused(tmp_path):
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}
    refused = pytest.raises(DataError, match="owner/name: the hub's folder has no .*; pickles are not read")
    with Hub({"owner/name": files}) as hub, refused:
        locate_adapter("owner/name", tmp_path, endpoint=hub.url)


def test_a_hub_repository_whose_only_file_has_a_name_of_its_own(trained, tmp_path):
    lora = (trained.folder / "diffusers" / DIFFUSERS_FILE).read_bytes()
    with Hub({"owner/one": {"style_v2.safetensors": lora, "README.md": b"x"}, "owner/two": {
        "a-1000.safetensors": lora, "a-2000.safetensors": lora, "x/y.safetensors": b""}}) as hub:  # fmt: skip
        found = locate_adapter("owner/one", tmp_path / "cache", endpoint=hub.url)
        assert hub.downloads() == ["style_v2.safetensors"]
        with pytest.raises(DataError, match="several weight files .a-1000.*, a-2000.safetensors.; download one"):
            locate_adapter("owner/two", tmp_path / "cache", endpoint=hub.url)
    assert convert_adapter(found, tmp_path / "adapter", target()).sha256.keys() == {"style_v2.safetensors"}
    assert locate_adapter("owner/one", tmp_path / "cache", endpoint=hub.url) == found  # no hub any more


def test_the_same_adapter_becomes_the_same_bytes(trained, tmp_path):
    for name in ("a", "b"):
        convert_adapter(trained.folder / "diffusers", tmp_path / name, target())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    weights = ["adapter_model.safetensors", "comfyui_lora.safetensors", "pytorch_lora_weights.safetensors"]
    assert names == ["adapter_config.json", *weights, "source.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_another_family_is_read_from_its_configuration_alone(tmp_path):
    """Qwen-Image has other names and other modules; no weights are needed to check an adapter against it."""
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    transformer.save_config(tmp_path / "t2i" / "transformer")
    index = {"_class_name": "QwenImagePipeline", "transformer": ["diffusers", "QwenImageTransformer2DModel"]}
    (tmp_path / "t2i" / "model_index.json").write_text(json.dumps(index))
    qwen = load_target(family_named("qwenimage"), str(tmp_path / "t2i"))
    assert qwen.family.name == "qwenimage" and qwen.linears["transformer_blocks.1.attn.to_q"] == (32, 32)
    options = {"target_modules": ["to_q", "net.0.proj"], "init_lora_weights": False}
    adapted = get_peft_model(transformer, LoraConfig(r=2, lora_alpha=4, **options))
    adapted.save_pretrained(tmp_path / "peft")
    imported = convert_adapter(tmp_path / "peft", tmp_path / "adapter", qwen)
    assert (imported.modules, imported.ranks, imported.alphas) == (6, {"2": 6}, {"4": 6})
    with pytest.raises(DataError, match="has no linear layer transformer_blocks.0.attn.to_q"):
        convert_adapter(tmp_path / "peft", tmp_path / "other", target())


def test_command(trained, tmp_path):
    config = Experiment(tmp_path / "experiment").config()
    arguments = ["adapter", "import", "--config", str(config), "--out", str(tmp_path / "adapter")]
    run = CliRunner().invoke(app, [*arguments, "--source", str(trained.folder / "peft")])
    assert run.exit_code == 0, run.output
    assert f"adapter: rank 4, alpha 8, {len(trained.layers) // 2} modules; PEFT folder from" in run.output
    run = CliRunner().invoke(app, [*arguments, "--source", str(trained.folder / "diffusers"), "--json"])
    facts = json.loads(run.stdout)
    assert facts["form"] == "LoRA file" and facts["note"] == "" and facts["ranks"] == {"4": facts["modules"]}
    assert trained.acts_as(tmp_path / "adapter")
    (tmp_path / "lora.safetensors").write_bytes((trained.folder / "plain" / DIFFUSERS_FILE).read_bytes())
    run = CliRunner().invoke(app, [*arguments, "--source", str(tmp_path / "lora.safetensors"), "--alpha", "8"])
    assert run.exit_code == 0 and trained.acts_as(tmp_path / "adapter")


def test_export_adds_the_file_to_checkpoints_that_lack_it(trained, tmp_path):
    """The same bytes as a new checkpoint has; nothing else of the folder changes, its time neither."""
    runs = []
    for step in ("20", "40"):
        convert_adapter(trained.folder / "peft", tmp_path / "runs" / step / "adapter", target())
        runs.append(tmp_path / "runs" / step)
    kept = (runs[0] / "adapter" / COMFYUI_FILE).read_bytes()
    for run in runs:
        (run / "adapter" / COMFYUI_FILE).unlink()
        os.utime(run / "adapter", (1, 1))
    before = {path.name: path.read_bytes() for path in (runs[0] / "adapter").iterdir()}
    done = CliRunner().invoke(app, ["adapter", "export", str(runs[0]), str(runs[1] / "adapter")])
    assert done.exit_code == 0 and done.output.count(f"{COMFYUI_FILE}: {len(trained.layers) // 2} modules\n") == 2
    for run in runs:
        assert {path.name: path.read_bytes() for path in (run / "adapter").iterdir()} == {**before, COMFYUI_FILE: kept}
        assert (run / "adapter").stat().st_mtime == 1
    again = CliRunner().invoke(app, ["adapter", "export", str(runs[0]), "--json"])
    assert json.loads(again.stdout)[0]["written"] is False
    elsewhere = tmp_path / "elsewhere" / "shapes.safetensors"
    assert export([runs[0]], elsewhere)[0]["written"] and elsewhere.read_bytes() == kept
    with pytest.raises(DataError, match="runs, .*nowhere: no adapter_config.json there or in adapter/; give runs/R/N"):
        export([tmp_path / "runs", runs[0], tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="is one file, and there are 2 folders"):
        export(runs, elsewhere)
    with pytest.raises(ConfigError, match="the name of a file of the adapter itself"):
        export(runs[:1], runs[0] / "adapter" / "adapter_model.safetensors")
