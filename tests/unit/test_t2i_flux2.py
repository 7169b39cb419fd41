"""The FLUX.2 klein adapter against diffusers' own pipeline, image for image; it trains, diffusers, PEFT and we read its
files, and plans know the published sizes."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_flux2
import torch
from adapter_of_family import assert_others_read, assert_we_read, put_on
from forked import run
from peft import PeftModel
from tiny_experiment import Experiment

from promptecho.bench import transformer
from promptecho.config.families import family_named
from promptecho.config.image_sizes import size_problem
from promptecho.config.models import T2iSection
from promptecho.config.training import TrainingConfig
from promptecho.config.training_parts import LoraSection
from promptecho.errors import DataError
from promptecho.models.inventory import ModelStatus
from promptecho.models.required import RequiredModel
from promptecho.plan.architectures import build_family
from promptecho.plan.costs import T2iCosts
from promptecho.t2i.lora import adapted_layers, add_lora, save_adapter, trained_parameters
from promptecho.t2i.patches import patch_channels
from promptecho.t2i.registry import load_family

PROMPTS = ["A red circle.", "Three blue squares.", "The image shows a ring and a black cross."]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return tiny_flux2.build(tmp_path_factory.mktemp("distilled") / "t2i", is_distilled=True)


def piped(folder=None):
    from diffusers import Flux2KleinPipeline

    pipeline = Flux2KleinPipeline.from_pretrained(folder or tiny_flux2.shared_folder(), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(folder=None, **options):
    return load_family("flux2", str(folder or tiny_flux2.shared_folder()), **options)


@functools.cache
def encoded() -> list[torch.Tensor]:
    return load().encode_prompts(PROMPTS)


def noise_of(family, n: int, height: int, width: int) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def call(noise: torch.Tensor, prompts: list[str], guidance_scale: float, steps: int = 4) -> dict:
    return {
        "prompt": prompts, "guidance_scale": guidance_scale, "height": 4 * noise.shape[-2],
        "width": 4 * noise.shape[-1], "num_inference_steps": steps, "latents": patch_channels(noise),
    }  # fmt: skip


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("n, height, width, steps", [(3, 32, 32, 4), (1, 64, 48, 5)])
def test_sampler_equals_the_pipeline(guidance_scale, n, height, width, steps):
    family, pipeline = load(), piped()
    noise, cond = noise_of(family, n, height, width), family.encode_prompts(PROMPTS[:n])
    latents = family.sample(noise, cond, num_inference_steps=steps, guidance_scale=guidance_scale)
    options = call(noise, PROMPTS[:n], guidance_scale, steps)
    expected = pipeline(**options, output_type="latent").images  # as the VAE takes them
    torch.testing.assert_close(family.normalised(latents), expected, rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(family.timesteps(steps, height, width), pipeline.scheduler.sigmas, rtol=0, atol=0)
    for ours, other in zip(family.decode(latents), pipeline(**options).images, strict=True):
        assert ours.size == (width, height)
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(other)).max() <= 1


def test_a_distilled_model_is_never_guided_as_in_the_pipeline(distilled):
    family, noise = load(distilled), noise_of(load(distilled), 1, 32, 32)
    cond = family.encode_prompts(PROMPTS[:1])
    plain, asked = (family.sample(noise, cond, num_inference_steps=4, guidance_scale=scale) for scale in (1.0, 4.0))
    expected = piped(distilled)(**call(noise, PROMPTS[:1], 4.0), output_type="latent").images
    assert torch.equal(plain, asked)
    torch.testing.assert_close(family.normalised(asked), expected, rtol=1e-4, atol=5e-5)


def test_words_guidance_the_negative_prompt_and_steps_matter():
    family = load()
    noise, (one, other, negative) = noise_of(family, 1, 32, 32), encoded()

    def sample(cond, guidance_scale=4.0, steps=4):
        return family.sample(noise, [cond], num_inference_steps=steps, guidance_scale=guidance_scale)

    base, changed = sample(one), [sample(other), sample(one, 1.0), sample(one, steps=5)]
    family.set_negative(negative)
    for latents in (*changed, sample(one)):
        assert (latents - base).abs().max() > 1e-3


def test_prompts_are_padded_and_what_is_too_long_is_an_error():
    assert {one.shape for one in encoded()} == {(512, 3 * tiny_flux2.TEXT_WIDTH)}
    with pytest.raises(DataError, match="tokens with the chat template, FLUX.2 klein takes 512; lower captions.max_"):
        load().encode_prompts(["a red circle and " * 300])


def test_the_benchmark_gives_the_pipeline_its_noise_in_patches():
    pipeline, noise = piped(), noise_of(load(), 2, 32, 32)
    t2i = T2iSection(family="flux2", path=str(tiny_flux2.shared_folder()), height=32, width=32)
    training = TrainingConfig.model_validate({"sampling": {"guidance_scale": 4.0}})
    bench: Any = SimpleNamespace(config=SimpleNamespace(models=SimpleNamespace(t2i=t2i)), training=training)
    images = transformer.piped(bench, pipeline, PROMPTS[:2], noise, 2)
    expected = pipeline(**call(noise, PROMPTS[:2], 4.0, 2)).images
    assert [image.tobytes() for image in images] == [image.tobytes() for image in expected]


def test_the_adapter_loads_in_diffusers_and_peft_at_full_strength_and_is_read_back(tmp_path):
    family, adapter = load(), tmp_path / "adapter"
    names = put_on(family, adapter)
    # Twelve layers in each block of two streams, and two in each of the others.
    assert len(names) == 2 * (2 * 12 + 2 * 2)
    assert sum("single_transformer_blocks" in name for name in names) == 2 * 2 * 2
    noise = noise_of(family, 1, 32, 32)
    ours = family.normalised(family.sample(noise, encoded()[:1], num_inference_steps=3, guidance_scale=4.0))
    told = call(noise, PROMPTS[:1], 4.0, 3)
    assert_others_read(adapter, ours, piped, lambda pipeline: pipeline(**told, output_type="latent").images)
    assert_we_read(adapter, family, tiny_flux2.shared_folder(), tmp_path)


def test_a_run_trains_it_with_guidance_in_the_loss(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_flux2.shared_folder())
    vlm = {"path": str(experiment.vlm), "dtype": "float32"}
    t2i = {"family": "flux2", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32}
    config = experiment.config(
        sections={"models": {"t2i": t2i, "vlm": vlm}}, iterations=1, checkpoints=[1], sampling={"guidance_scale": 4.0},
        train_guidance=True,
    )  # fmt: skip
    assert "checkpoint 1 in" in run(experiment.train(config, 1, "a"))


def test_a_plan_counts_the_encoder_whole_though_it_looks_at_its_states_by_number():
    """36 layers with 28 of them computed: as many operations as the sum over all."""
    path, family = "black-forest-labs/FLUX.2-klein-4B", family_named("flux2")
    found = ModelStatus(RequiredModel(path, "pipeline", None, ("models.t2i",)), "missing")
    section = T2iSection(family="flux2", path=path, height=256, width=256)
    costs = T2iCosts(found, section, TrainingConfig(), prompt_tokens=100)
    [encoder] = costs.family.text_encoders
    # The table of words is read at the beginning, and multiplied with at the end.
    weights = costs._deep_encoders[0].number(lambda: sum(p.numel() for p in encoder.parameters() if p.ndim == 2))
    passes = 2 * 512 * weights  # of 512 tokens, whatever the prompt's length
    assert family.text_encoders[0].deepest_state == 27 and sum(costs.encode().flops.values()) >= passes
    assert sum(costs.encode().flops.values()) == pytest.approx(passes, rel=0.05)  # attention is the rest


def test_an_ending_that_fits_a_list_of_layers_too_takes_the_linear_ones(tmp_path):
    """`to_out` is a layer of the single-stream blocks, and of the others a list whose first entry is one."""
    family = load()
    model = add_lora(
        family.transformer, LoraSection(rank=2, alpha=2, target_modules=["to_out"]), 1, family.lora_targets
    )
    adapted = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained_parameters(model)}
    assert adapted == {f"single_transformer_blocks.{n}.attn.to_out" for n in (0, 1)}
    assert adapted <= adapted_layers(load().transformer, LoraSection(), family.lora_targets)
    save_adapter(model, trained_parameters(model), tmp_path / "adapter", family.descriptor)
    PeftModel.from_pretrained(load().transformer, str(tmp_path / "adapter"))


@pytest.mark.parametrize(("size", "billions", "encoder"), [("4B", 3.88, 4.02), ("9B", 9.08, 8.19)])
def test_plans_know_the_published_sizes(size, billions, encoder):
    for kind in ("klein-base", "klein"):
        path = f"black-forest-labs/FLUX.2-{kind}-{size}"
        found = ModelStatus(RequiredModel(path, "pipeline", None, ("models.t2i",)), "missing")
        model = build_family(found, T2iSection(family="flux2", path=path))
        parts = (model.transformer, *model.text_encoders)
        counts = [sum(p.numel() for p in part.parameters()) / 1e9 for part in parts]
        assert counts == pytest.approx([billions, encoder], abs=0.01)
        assert model.latent_shape(1024, 1024) == (32, 128, 128)
        assert size_problem(family_named("flux2"), path, 1000, 1024) == (
            "1000 x 1024 pixels: both must be multiples of 16, such as 992 x 1024"
        )
        assert model.pipeline.config.is_distilled is (kind == "klein")
