"""A model family from outside, end to end: the example's folder, copied elsewhere, and nothing of the project changed.

A tiny AuraFlow with random weights is checked, planned, trained and sampled from by commands; its images are
those of diffusers' own pipeline, with and without the adapter, which is read back from each file that holds it.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import ended, run
from PIL import Image
from safetensors.torch import load_file, save_file

from promptecho.config import load_experiment
from promptecho.config.changes import changes
from promptecho.config.families import FAMILIES, family_named
from promptecho.config.slices import slice_value
from promptecho.errors import DataError
from promptecho.files import read_json, read_jsonl
from promptecho.t2i.comfyui import COMFYUI_FILE, export
from promptecho.t2i.external import Target, convert_adapter, load_target
from promptecho.t2i.lora import load_adapter
from promptecho.t2i.registry import load_configured

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "family"
PROMPTS = ["A red circle.", "Three blue squares and a star.", "A green ring.", "Two crosses.", "A star.", "Rings."]
CHANGES = (
    "captions.shapes=null captions.prompts=p.txt captions.heldout=2 image_sets.heldout.heldout=2 benchmarks={} "
    "evaluate=[] tables=[]"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a user has copied the example and made the tiny model."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(EXAMPLE, folder / "mine")
        ended(["results/tiny-auraflow"], script=folder / "mine/make_tiny_auraflow.py")
    return folder


@pytest.fixture(autouse=True)
def as_before(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(FAMILIES, "named", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()


def facts(*words: object) -> list | dict:
    return json.loads(ended([*map(str, words), "--json"])[0])


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """The folder after a run of two iterations, as the workflow's jobs do it: they read the resolved configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "p.txt").write_text("\n".join(PROMPTS))
        changes = " ".join(f"shapes-auraflow.{change}" for change in CHANGES.split())
        (folder / "write.py").write_text(
            "from promptecho.config.resolve import resolve, write_resolved\n"
            f"site = {{'experiments': ['shapes-auraflow'], 'experiments_dir': 'mine', 'set': {changes!r}}}\n"
            "write_resolved(resolve(site)['shapes-auraflow'], 'config').rename('resolved.yaml')\n"
        )
        ended([], script=folder / "write.py")
        of = ["--config", "resolved.yaml"]
        run(["caption", "prompts", *of, "--prompts", "p.txt", "--out", "c.h5", "--heldout-out", "h.jsonl"])
        words = ["--run", "echo-s1", "--to", "2", "--captions", "c.h5", "--out", "out/2", "--work", "work"]
        run(["train", *of, *words])
        for who, step, more in (("base", "0", []), ("echo-s1", "2", ["--adapter", "out/2/adapter"])):
            place = ["--prompts", "h.jsonl", "--out", f"images/{who}", "--work", f"work/{who}"]
            run(["generate", *of, "--run", who, "--step", step, "--image-set", "heldout", *place, *more])
    return folder


def test_it_is_listed_checked_and_planned_with(folder):
    config = "mine/shapes-auraflow.yaml"
    run(["config", "check", config])
    listed = facts("list", "families", "--config", config)[-1]
    assert (listed["name"], listed["pipeline"]) == ("auraflow", "AuraFlowPipeline")
    assert listed["from"] == f"{config}: plugins.0"
    plan = facts("plan", "--config", config, "--gpus-per-node", 1)
    [encode] = [phase for phase in plan["runs"][0]["phases"] if phase["name"] == "encode"]
    files = Path("results/tiny-auraflow").glob("text_encoder/*.safetensors")
    weights = sum(value.numel() for file in files for value in load_file(file).values())
    assert encode["flops"] > 100 * weights  # its encoder has run, on 256 tokens
    Path("mine/wrong.yaml").write_text(Path(config).read_text().replace("family: auraflow", "family: zimage"))
    said = run(["config", "check", "mine/wrong.yaml"], code=1)
    fit = "holds a AuraFlowPipeline with a AuraFlowTransformer2DModel, not a Z-Image pipeline"
    assert f"models.t2i.path: results/tiny-auraflow: {fit}; set models.t2i.family: auraflow, or correct" in said


def test_what_the_configuration_leaves_out_is_as_the_family_has_it(folder):
    config = load_experiment("mine/shapes-auraflow.yaml")
    assert config.runs["echo-s1"].sampling.guidance_scale == config.image_sets["heldout"].guidance_scale == 3.5


def test_it_is_trained_and_its_images_change(trained):
    rows = read_jsonl(trained / "out/2/metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2] and all(row["advantage_abs_mean"] > 0 for row in rows)
    weights = load_file(trained / "out/2/adapter/adapter_model.safetensors")
    names = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in weights}
    # Both streams of the first block, and the only one of the second.
    assert len(names) == 2 * 7 + 7 and "joint_transformer_blocks.0.ff_context.linear_1" in names
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    pictures = [sorted((trained / "images" / who).rglob("*.png")) for who in ("base", "echo-s1")]
    assert [len(one) for one in pictures] == [2, 2]
    for base, ours in zip(*pictures, strict=True):
        assert Image.open(base).size == (64, 64) and base.read_bytes() != ours.read_bytes()


def test_the_same_noise_is_the_same_image_in_diffusers_with_the_adapter_and_without(trained):
    from diffusers import AuraFlowPipeline

    theirs = AuraFlowPipeline.from_pretrained("results/tiny-auraflow", dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    ours = load_configured(load_experiment("resolved.yaml"))
    found = {}
    for who in ("base", "adapter"):
        if who == "adapter":
            ours.transformer = load_adapter(ours.transformer, trained / "out/2/adapter")
            theirs.load_lora_weights(str(trained / "out/2/adapter"))
        for guidance, size in ((0.0, 64), (4.5, 32)):
            noise = torch.randn(2, *ours.latent_shape(size, size), generator=torch.Generator().manual_seed(size))
            options = {"num_inference_steps": 4, "guidance_scale": guidance}
            latents = ours.sample(noise, ours.encode_prompts(PROMPTS[:2]), **options)
            call = {"prompt": PROMPTS[:2], "height": size, "width": size, "latents": noise.clone(), **options}
            torch.testing.assert_close(latents, theirs(**call, output_type="latent").images, rtol=1e-4, atol=1e-4)
            found[who, size] = latents
    for size in (64, 32):
        assert (found["base", size] - found["adapter", size]).abs().max() > 1e-2
    pixels = theirs(**call, output_type="np").images
    decoded = torch.stack([torch.tensor(np.asarray(image)) for image in ours.decode(latents)]) / 255
    assert (decoded - torch.tensor(pixels)).abs().max() < 0.005


def target_of_example() -> Target:
    return load_target(family_named(load_experiment("resolved.yaml").models.t2i.family), "results/tiny-auraflow")


def test_its_adapter_is_read_back_from_every_file(trained):
    adapter = trained / "out/2/adapter"
    words = ["--config", "resolved.yaml", "--source", str(adapter), "--out", "back/peft"]
    run(["adapter", "import", *words])
    for file in ("pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"):
        convert_adapter(adapter / file, trained / "back" / file, target_of_example())
    expected = load_file(adapter / "adapter_model.safetensors")
    for out in (trained / "back").iterdir():
        found = load_file(out / "adapter_model.safetensors")
        assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
        assert [read_json(one / "adapter_config.json")["lora_alpha"] for one in (adapter, out)] == [128, 128]
        assert all(name.startswith("transformer.") for name in load_file(out / COMFYUI_FILE))
        assert not export([out])[0]["written"]  # it would be the same once more, with the family's own prefix


def test_a_file_with_names_that_diffusers_does_not_read_for_it_is_refused(trained):
    flat = {}
    for name, value in load_file(trained / "out/2/adapter" / COMFYUI_FILE).items():
        half = next(one for one in (".lora_down.weight", ".lora_up.weight", ".alpha") if name.endswith(one))
        flat[f"lora_unet_{name.removeprefix('transformer.').removesuffix(half).replace('.', '_')}{half}"] = value
    save_file(flat, trained / "kohya.safetensors")
    with pytest.raises(DataError, match="diffusers does not read such names for AuraFlow; convert"):
        convert_adapter(trained / "kohya.safetensors", trained / "nowhere", target_of_example())


def test_a_raised_version_makes_trainings_images_and_imports_again_and_no_captions(folder):
    def slices() -> list[dict]:
        config = load_experiment("mine/shapes-auraflow.yaml", {"runs": {"authors": {"adapter": "owner/name"}}})
        return [
            slice_value(config, "train", "echo-s1"), slice_value(config, "generate", image_set="heldout"),
            slice_value(config, "adapter", "authors"), slice_value(config, "merge"),
        ]  # fmt: skip

    first, file = slices(), folder / "mine/auraflow_family.py"
    text = file.read_text()
    try:
        file.write_text(text.replace('name="auraflow",', 'name="auraflow",\n    version=2,'))
        FAMILIES.named.clear()
        del sys.modules["auraflow_family"]
        importlib.invalidate_caches()
        second = slices()
    finally:
        file.write_text(text)
    assert [old != new for old, new in zip(first, second, strict=True)] == [True, True, True, False]
    assert [str(one) for one in changes("train", first[0], second[0])] == ["version of the family (was 1, now 2)"]
