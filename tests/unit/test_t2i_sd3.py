"""The Stable Diffusion 3.5 adapter against diffusers' own pipeline, image for image; it trains, diffusers, PEFT and we
read its files, and plans know the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_sd3
import torch
from adapter_of_family import assert_others_read, assert_we_read, put_on
from forked import run
from tiny_experiment import Experiment

from promptecho.config.families import family_named
from promptecho.config.models import T2iSection
from promptecho.errors import DataError, ModelError
from promptecho.models.inventory import ModelStatus
from promptecho.models.required import RequiredModel
from promptecho.plan.architectures import build_family
from promptecho.t2i.registry import load_family
from promptecho.t2i.sd3.model import StableDiffusion3

PROMPTS = ["A red circle.", "Three blue squares.", "The image shows a ring and a black cross."]


def piped():
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(tiny_sd3.shared_folder(), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(**options):
    return load_family("sd3", str(tiny_sd3.shared_folder()), **options)


def noise_of(family, n: int, height: int, width: int) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def call(noise: torch.Tensor, prompts: list[str], guidance_scale: float, steps: int = 4) -> dict:
    return {
        "prompt": prompts, "guidance_scale": guidance_scale, "height": 4 * noise.shape[-2],
        "width": 4 * noise.shape[-1], "num_inference_steps": steps, "latents": noise.clone(),
    }  # fmt: skip


@pytest.mark.parametrize("guidance_scale, negative", [(0.0, ""), (1.0, ""), (4.5, ""), (4.5, "A star.")])
@pytest.mark.parametrize("n, height, width", [(3, 32, 32), (1, 64, 48)])
def test_sampler_equals_the_pipeline(guidance_scale, negative, n, height, width):
    family, pipeline = load(negative_prompt=negative), piped()
    noise, cond = noise_of(family, n, height, width), family.encode_prompts(PROMPTS[:n])
    latents = family.sample(noise, cond, num_inference_steps=4, guidance_scale=guidance_scale)
    options = {**call(noise, PROMPTS[:n], guidance_scale), "negative_prompt": [negative] * n}
    torch.testing.assert_close(latents, pipeline(**options, output_type="latent").images, rtol=1e-4, atol=5e-5)
    for ours, other in zip(family.decode(latents), pipeline(**options).images, strict=True):
        assert ours.size == (width, height)
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(other)).max() <= 1


def test_words_guidance_the_negative_prompt_and_steps_matter():
    family = load()
    noise, (one, other, negative) = noise_of(family, 1, 32, 32), family.encode_prompts(PROMPTS)

    def sample(cond, guidance_scale=4.5, steps=4):
        return family.sample(noise, [cond], num_inference_steps=steps, guidance_scale=guidance_scale)

    base, changed = sample(one), [sample(other), sample(one, 1.0), sample(one, steps=5)]
    family.set_negative(negative)
    for latents in (*changed, sample(one)):
        assert (latents - base).abs().max() > 1e-3


def test_t5_reads_the_whole_prompt_and_the_clips_its_start():
    start = "a red circle and " * 40  # more than 77 tokens, fewer than 256
    one, other = load().encode_prompts([f"{start}a ring", f"{start}two green stars"])
    assert one.shape == (77 + 256 + 1, tiny_sd3.T5_WIDTH)
    assert torch.equal(one[:77], other[:77]) and torch.equal(one[-1], other[-1])
    assert not torch.equal(one[77:-1], other[77:-1])
    with pytest.raises(DataError, match="tokens, Stable Diffusion 3.5 takes 256; lower captions.max_tokens"):
        load().encode_prompts(["a red circle and " * 300])


def test_what_it_cannot_make_is_refused_in_one_line():
    with pytest.raises(ModelError, match="^72 x 64 pixels: the model has positions for 64 x 64$"):
        load().latent_shape(72, 64)
    pipeline = piped()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    with pytest.raises(ModelError, match=r"a pipeline without T5 \(text_encoder_3\), which alone sees whole prompts"):
        StableDiffusion3(family_named("sd3"), pipeline)


def test_the_adapter_loads_in_diffusers_and_peft_at_full_strength_and_is_read_back(tmp_path):
    family, adapter = load(), tmp_path / "adapter"
    names = put_on(family, adapter)
    # Twelve layers in each block, of which the last has three less, and four of the second attention.
    assert len(names) == 2 * (12 + 12 - 3 + 4) and any("attn2.to_out.0" in name for name in names)
    noise = noise_of(family, 1, 32, 32)
    ours = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=3, guidance_scale=4.5)
    told = call(noise, PROMPTS[:1], 4.5, 3)
    assert_others_read(adapter, ours, piped, lambda pipeline: pipeline(**told, output_type="latent").images)
    assert_we_read(adapter, family, tiny_sd3.shared_folder(), tmp_path)


def test_a_run_trains_it_with_guidance_in_the_loss(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_sd3.shared_folder())
    vlm = {"path": str(experiment.vlm), "dtype": "float32"}
    t2i = {"family": "sd3", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32}
    config = experiment.config(
        sections={"models": {"t2i": t2i, "vlm": vlm}}, iterations=2, checkpoints=[2], sampling={"guidance_scale": 4.5},
        train_guidance=True,
    )  # fmt: skip
    assert "checkpoint 2 in" in run(experiment.train(config, 2, "a"))


@pytest.mark.parametrize(
    ("name", "millions"), [("large", 8057), ("large-turbo", 8057), ("medium", 2243)]
)  # of weights, without the table of positions
def test_plans_know_the_published_sizes(name, millions):
    path = f"stabilityai/stable-diffusion-3.5-{name}"
    found = ModelStatus(RequiredModel(path, "pipeline", None, ("models.t2i",)), "missing")
    model = build_family(found, T2iSection(family="sd3", path=path))
    assert sum(p.numel() for p in model.transformer.parameters()) / 1e6 == pytest.approx(millions, abs=1)
    # CLIP ViT-L/14's and ViT-bigG/14's text models with projection, and T5 v1.1 XXL's encoder.
    sizes = [sum(p.numel() for p in encoder.parameters()) / 1e6 for encoder in model.text_encoders]
    assert sizes == pytest.approx([123.7, 694.7, 4762.3], abs=0.1)
    assert model.latent_shape(1024, 1024) == (16, 128, 128)
