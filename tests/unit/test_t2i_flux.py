"""The FLUX.1 adapter against diffusers' own pipeline, image for image; it trains, and diffusers reads its files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from adapter_of_family import assert_others_read, put_on
from forked import run
from tiny_experiment import Experiment

from promptecho.bench import transformer
from promptecho.config import load_experiment
from promptecho.config.models import T2iSection
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError, DataError
from promptecho.t2i.patches import pack, unpack
from promptecho.t2i.registry import load_family

PROMPTS = ["A red circle.", "Three blue squares.", "The image shows a ring and a black cross."]


def piped(folder):
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load():
    return load_family("flux", str(tiny_flux.shared_folder()))


def noise_of(family, n: int, height: int, width: int) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def call(noise: torch.Tensor, prompts: list[str], guidance_scale: float, steps: int = 4) -> dict:
    height, width = 8 * noise.shape[-2], 8 * noise.shape[-1]
    return {
        "prompt": prompts, "guidance_scale": guidance_scale, "height": height, "width": width,
        "num_inference_steps": steps, "latents": pack(noise),
    }  # fmt: skip


@pytest.mark.parametrize("guidance_scale", [1.0, 3.5])
@pytest.mark.parametrize("n, height, width", [(3, 32, 32), (1, 64, 48)])
def test_sampler_equals_the_pipeline(guidance_scale, n, height, width):
    family, pipeline = load(), piped(tiny_flux.shared_folder())
    noise, cond = noise_of(family, n, height, width), family.encode_prompts(PROMPTS[:n])
    latents = family.sample(noise, cond, num_inference_steps=4, guidance_scale=guidance_scale)
    expected = pipeline(**call(noise, PROMPTS[:n], guidance_scale), output_type="latent").images
    torch.testing.assert_close(latents, unpack(expected, *noise.shape[-2:]), rtol=1e-4, atol=5e-5)
    theirs = pipeline(**call(noise, PROMPTS[:n], guidance_scale)).images
    for ours, other in zip(family.decode(latents), theirs, strict=True):
        assert ours.size == (width, height)
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(other)).max() <= 1


def test_the_benchmark_gives_the_pipeline_its_noise_in_patches():
    pipeline, noise = piped(tiny_flux.shared_folder()), noise_of(load(), 2, 32, 32)
    t2i = T2iSection(family="flux", path=str(tiny_flux.shared_folder()), height=32, width=32)
    training = TrainingConfig.model_validate({"sampling": {"guidance_scale": 2.0}})
    bench: Any = SimpleNamespace(config=SimpleNamespace(models=SimpleNamespace(t2i=t2i)), training=training)
    images = transformer.piped(bench, pipeline, PROMPTS[:2], noise, 2)
    expected = pipeline(**call(noise, PROMPTS[:2], 2.0, 2)).images
    assert [image.tobytes() for image in images] == [image.tobytes() for image in expected]


def test_words_guidance_and_times_matter_and_guidance_one_is_none():
    family = load()
    noise, (one, other) = noise_of(family, 1, 32, 32), family.encode_prompts(PROMPTS[:2])

    def sample(cond, guidance_scale=3.5, steps=4):
        return family.sample(noise, [cond], num_inference_steps=steps, guidance_scale=guidance_scale)

    base = sample(one)
    for changed in (sample(other), sample(one, 1.0), sample(one, steps=5)):
        assert (changed - base).abs().max() > 1e-3
    t = torch.tensor([0.5])
    assert torch.equal(family.velocity(noise, t, [one]), family.guided_velocity(noise, t, [one], 1.0))


def test_a_model_without_guidance_has_one_velocity(tmp_path):
    family = load_family("flux", str(tiny_flux.build(tmp_path / "schnell", guidance_embeds=False)))
    noise, cond, t = noise_of(family, 1, 32, 32), family.encode_prompts(PROMPTS[:1]), torch.tensor([0.5])
    assert torch.equal(family.velocity(noise, t, cond), family.guided_velocity(noise, t, cond, 3.5))


def test_a_negative_prompt_is_refused(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_flux.shared_folder())
    t2i = {"family": "flux", "path": str(experiment.t2i), "height": 32, "width": 32, "negative_prompt": "blurry"}
    models = {"t2i": t2i, "vlm": {"path": str(experiment.vlm)}}
    with pytest.raises(ConfigError, match="models.t2i.negative_prompt: FLUX.1 has no negative prompt; remove it"):
        load_experiment(experiment.config(sections={"models": models}))


def test_too_long_a_prompt_is_an_error():
    with pytest.raises(DataError, match="tokens, FLUX.1 takes 512"):
        load().encode_prompts(["a red circle and " * 300])


def test_the_adapter_loads_in_diffusers_and_peft_at_full_strength(tmp_path):
    family, adapter = load(), tmp_path / "adapter"
    names = put_on(family, adapter)
    for blocks in ("base_model.model.transformer_blocks.", "base_model.model.single_transformer_blocks."):
        assert any(name.startswith(blocks) for name in names)
    assert not any("proj_out" in name for name in names)
    noise = noise_of(family, 1, 32, 32)
    ours = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=3, guidance_scale=3.5)
    told = call(noise, PROMPTS[:1], 3.5, 3)

    def made(pipeline):
        return unpack(pipeline(**told, output_type="latent").images, *noise.shape[-2:])

    assert_others_read(adapter, ours, lambda: piped(tiny_flux.shared_folder()), made)


def test_a_run_trains_it(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_flux.shared_folder())
    vlm = {"path": str(experiment.vlm), "dtype": "float32"}
    t2i = {"family": "flux", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32}
    config = experiment.config(
        sections={"models": {"t2i": t2i, "vlm": vlm}}, iterations=2, checkpoints=[2], sampling={"guidance_scale": 3.5},
        train_guidance=True,
    )  # fmt: skip
    assert "checkpoint 2 in" in run(experiment.train(config, 2, "a"))
