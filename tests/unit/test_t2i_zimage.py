"""The Z-Image adapter against diffusers' own pipeline, image for image."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_t2i
import torch

from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.t2i.diffusers_model import channels_last, image_shift
from promptecho.t2i.registry import load_family

PROMPTS = ["A red circle.", "Three blue squares.", "a photo of a star", "The image shows a ring and a black cross."]
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 16}


@pytest.fixture(scope="module", params=["static", "dynamic"])
def models(request, tmp_path_factory):
    """(adapter, a pipeline of its own, loaded apart)."""
    from diffusers import ZImagePipeline

    folder = tiny_t2i.shared_folder()
    if request.param == "dynamic":
        folder = tiny_t2i.build(tmp_path_factory.mktemp("dynamic"), **DYNAMIC)
    pipeline = ZImagePipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return load_family("zimage", str(folder)), pipeline


def noise_of(family, n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("n, height, width", [(1, 32, 32), (4, 32, 32), (2, 64, 48)])
def test_sampler_equals_the_pipeline(models, guidance_scale, n, height, width):
    family, pipeline = models
    noise = noise_of(family, n, height, width)
    options = {"num_inference_steps": 5, "guidance_scale": guidance_scale}
    latents = family.sample(noise, family.encode_prompts(PROMPTS[:n]), **options)
    call = {"prompt": PROMPTS[:n], "height": height, "width": width, "latents": noise.clone(), **options}
    expected = pipeline(**call | {"prompt": list(PROMPTS[:n])}, output_type="latent").images
    # The pipeline encodes padded, we unpadded: float noise of 1e-6, which guidance and depth raise to some 1e-5.
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=5e-5)
    images = pipeline(**call | {"prompt": list(PROMPTS[:n])}).images
    # Equal up to rounding at the edge between two grey levels; two calls of the pipeline itself differ by as much.
    for ours, theirs in zip(family.decode(latents), images, strict=True):
        assert ours.size == (width, height) and ours.mode == "RGB"
        difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize("steps", [8, 9])
def test_the_turbos_settings_are_the_pipelines(steps):
    """No guidance, few steps, a static shift of 3: as many passes as steps; as zimage-turbo.yaml has it."""
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(tiny_t2i.shared_folder(), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    assert (family.scheduler.config.shift, family.scheduler.config.use_dynamic_shifting) == (3.0, False)
    passes: list[int] = []
    for transformer in (family.transformer, pipeline.transformer):
        transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    noise, options = noise_of(family, 2, 32, 48), {"num_inference_steps": steps, "guidance_scale": 0.0}
    latents = family.sample(noise, family.encode_prompts(PROMPTS[:2]), **options)
    assert len(passes) % steps == 0 and passes  # one for each length of prompts
    ours = len(passes)
    call = {"prompt": list(PROMPTS[:2]), "height": 32, "width": 48, "latents": noise.clone(), **options}
    expected = pipeline(**call, output_type="latent").images
    assert len(passes) - ours == steps
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=5e-5)
    for image, other in zip(
        family.decode(latents), pipeline(**call | {"prompt": list(PROMPTS[:2])}).images, strict=True
    ):
        assert np.abs(np.asarray(image).astype(int) - np.asarray(other)).max() <= 1


def test_the_comparison_could_fail(models):
    """Prompts, guidance and times change these latents by far more than the tolerance above."""
    family, _ = models
    noise = noise_of(family, 1, 32, 32)
    base = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=5, guidance_scale=1.0)
    other = family.sample(noise, family.encode_prompts(PROMPTS[1:2]), num_inference_steps=5, guidance_scale=1.0)
    unguided = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=5, guidance_scale=0.0)
    assert (base - other).abs().max() > 1e-2 and (base - unguided).abs().max() > 1e-2


def test_times_are_the_pipelines(models):
    family, pipeline = models
    for height, width in ((32, 32), (64, 48)):
        pipeline(
            prompt=["A star."], height=height, width=width, num_inference_steps=7, guidance_scale=0.0,
            output_type="latent",
        )  # fmt: skip
        sigmas = family.timesteps(7, height, width)
        assert len(sigmas) == 8 and sigmas[-1] == 0 and (sigmas[:-1] > sigmas[1:]).all() and sigmas[0] <= 1
        torch.testing.assert_close(sigmas.cpu(), pipeline.scheduler.sigmas.cpu().float(), rtol=0, atol=0)


def test_the_schedulers_own_times_are_those_of_the_authors_script(models):
    """Z-Image's scheduler shifts by 6; both ends are of 30 steps. The sampler really takes them."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    family, _ = models
    kept, family.scheduler = family.scheduler, FlowMatchEulerDiscreteScheduler(shift=6.0)
    try:
        ends = {name: family.timesteps(30, 32, 32, name) for name in ("pipeline", "scheduler")}
    finally:
        family.scheduler = kept
    assert [round(float(t), 3) for t in ends["pipeline"][-3:]] == [0.3, 0.171, 0]
    assert [round(float(t), 3) for t in ends["scheduler"][-3:]] == [0.201, 0.035, 0]
    assert all(len(t) == 31 and float(t[0]) == 1 for t in ends.values())

    noise, cond = noise_of(family, 1, 32, 32), family.encode_prompts(PROMPTS[:1])
    found = family.sample(noise, cond, num_inference_steps=4, guidance_scale=1.0, schedule="scheduler")
    scheduler = type(kept).from_config(kept.config)
    height, width = noise.shape[-2:]
    scheduler.set_timesteps(4, mu=image_shift((height // 2) * (width // 2), kept.config))
    x = noise
    for t in scheduler.timesteps:
        v = family.guided_velocity(x, (t / 1000).expand(1), cond, 1.0)
        x = scheduler.step(v, t, x, return_dict=False)[0]
    torch.testing.assert_close(found, x, rtol=1e-4, atol=5e-5)
    other = family.sample(noise, cond, num_inference_steps=4, guidance_scale=1.0)
    assert (found - other).abs().max() > 1e-3


def test_encoding_equals_the_pipelines_and_leaves_the_prompts_alone(models):
    family, pipeline = models
    prompts = list(PROMPTS)
    found = family.encode_prompts(prompts)
    assert prompts == PROMPTS
    expected, negative = pipeline.encode_prompt(list(PROMPTS), do_classifier_free_guidance=True)
    for a, b in zip([*found, family.negative(1)[0]], [*expected, negative[0]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(family.negative(3)) == 3


def test_an_embedding_does_not_depend_on_its_neighbours(models):
    family, _ = models
    together, alone = family.encode_prompts(PROMPTS), [family.encode_prompts([p])[0] for p in PROMPTS]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_a_prompt_that_the_pipeline_would_cut_is_refused(models):
    family, _ = models
    with pytest.raises(DataError, match="'a red circle and .*1208 tokens with the chat template, Z-Image takes 480"):
        family.encode_prompts([" ".join(["a red circle and"] * 300)])


def test_velocity_has_its_sign_and_time_from_the_shared_convention(models):
    """One Euler step from t to 0 along the velocity is the model's x0: x_t - t v, as its own output says."""
    family, _ = models
    x, t, cond = noise_of(family, 2, 32, 32), torch.tensor([0.3, 1.0]), family.encode_prompts(PROMPTS[:2])
    raw = family.transformer(list(x.unsqueeze(2)), 1 - t, cond, return_dict=False)[0]
    with torch.no_grad():
        found = family.velocity(x, t, cond)
    torch.testing.assert_close(found, -torch.stack(raw).squeeze(2).detach())
    guided = family.guided_velocity(x, t, cond, 2.0)
    negative = family.velocity(x, t, family.negative(2))
    torch.testing.assert_close(guided, found + 2 * (found - negative), rtol=1e-4, atol=1e-4)
    assert torch.equal(family.guided_velocity(x, t, cond, 0.0), family.velocity(x, t, cond))


def test_everything_is_frozen(models):
    family, _ = models
    modules = (family.pipeline.transformer, family.pipeline.text_encoder, family.pipeline.vae)
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    assert not any(module.training for module in modules)


def test_sizes_that_do_not_fit_are_named(models):
    family, _ = models
    assert family.latent_shape(64, 32) == (4, 16, 8)
    with pytest.raises(ModelError, match="33 x 32 pixels: both must be multiples of 8"):
        family.latent_shape(33, 32)


def test_bfloat16_keeps_latents_in_float32_and_the_vae_too():
    family = load_family("zimage", str(tiny_t2i.shared_folder()), dtype="bfloat16")
    assert family.transformer.dtype == torch.bfloat16 and family.vae.dtype == torch.float32
    noise = noise_of(family, 2, 32, 32)
    cond = family.encode_prompts(PROMPTS[:2])
    latents = family.sample(noise, cond, num_inference_steps=2, guidance_scale=1.0)
    assert latents.dtype == torch.float32 and cond[0].dtype == torch.bfloat16
    assert len(family.decode(latents)) == 2


def test_unknown_family_and_missing_or_foreign_folders_are_one_line(tmp_path):
    known = "zimage, qwenimage, qwenimage_edit, flux, sd3, flux2, wan"
    with pytest.raises(ConfigError, match=f"unknown family 'sdxl'; known: {known}"):
        load_family("sdxl", "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for name in ("missing", "empty", "broken", "foreign"):
        with pytest.raises(ModelError, match="check models.t2i.path") as caught:
            load_family("zimage", str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_the_vae_decodes_to_the_same_images_in_channels_last_which_is_for_gpus():
    family = load_family("zimage", "shapes")
    assert all(p.is_contiguous() for p in family.vae.parameters())  # on a CPU, as it was loaded
    latents = torch.randn(3, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    plain = family.decode(latents)
    channels_last(family.vae)
    convolutions = [p for p in family.vae.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[-1] > 1]
    assert convolutions and not any(p.is_contiguous() for p in convolutions)
    for one, other in zip(plain, family.decode(latents), strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1
