"""The Wan adapter against diffusers' own pipeline, frame for frame; it trains, and diffusers reads its files."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_wan
import torch
from adapter_of_family import assert_others_read, put_on

from promptecho.errors import DataError, ModelError
from promptecho.t2i.registry import load_family
from promptecho.video import Video

PROMPTS = ["A red circle.", "Three blue squares &amp; a  ring.", "The image shows a ring and a black cross."]


def piped(folder):
    """The pipeline with plain steps at UniPC's times."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    pipeline = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=pipeline.scheduler.config.flow_shift)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(frames: int = 5, folder=None):
    return load_family("wan", str(folder or tiny_wan.shared_folder()), frames=frames)


def noise_of(family, n: int, height: int, width: int) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def call(noise: torch.Tensor, prompts: list[str], guidance_scale: float, frames: int, steps: int = 4) -> dict:
    height, width = 4 * noise.shape[-2], 4 * noise.shape[-1]
    return {
        "prompt": prompts, "guidance_scale": guidance_scale, "height": height, "width": width, "num_frames": frames,
        "num_inference_steps": steps, "latents": noise, "negative_prompt": [""] * len(prompts),
    }  # fmt: skip


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize(("n", "height", "width", "frames"), [(3, 32, 32, 5), (1, 48, 32, 9), (2, 32, 32, 1)])
def test_sampler_equals_the_pipeline_frame_by_frame(guidance_scale, n, height, width, frames):
    family, pipeline = load(frames), piped(tiny_wan.shared_folder())
    noise, cond = noise_of(family, n, height, width), family.encode_prompts(PROMPTS[:n])
    assert noise.shape == (n, 4, (frames + 3) // 4, height // 4, width // 4)
    latents = family.sample(noise, cond, num_inference_steps=4, guidance_scale=guidance_scale)
    expected = pipeline(**call(noise, PROMPTS[:n], guidance_scale, frames), output_type="latent").frames
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=5e-5)
    theirs = pipeline(**call(noise, PROMPTS[:n], guidance_scale, frames), output_type="pil").frames
    for ours, other in zip(family.decode(latents), theirs, strict=True):
        shown = ours.frames if isinstance(ours, Video) else (ours,)
        assert ours.size == (width, height) and len(shown) == len(other) == frames
        for mine, frame in zip(shown, other, strict=True):
            assert np.abs(np.asarray(mine).astype(int) - np.asarray(frame)).max() <= 1


def test_a_time_for_each_token_as_wan_2_2_takes_it(tmp_path):
    folder = tiny_wan.build(tmp_path / "t2i", expand_timesteps=True)
    family = load(5, folder)
    noise = noise_of(family, 2, 32, 16)
    cond = family.encode_prompts(PROMPTS[:2])
    ours = family.sample(noise, cond, num_inference_steps=3, guidance_scale=2.0)
    theirs = piped(folder)(**call(noise, PROMPTS[:2], 2.0, 5, 3), output_type="latent").frames
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


def test_words_guidance_and_times_matter():
    family = load()
    noise, (one, other) = noise_of(family, 1, 32, 32), family.encode_prompts(PROMPTS[:2])

    def sample(cond, guidance_scale=3.5, steps=4):
        return family.sample(noise, [cond], num_inference_steps=steps, guidance_scale=guidance_scale)

    base = sample(one)
    for changed in (sample(other), sample(one, 1.0), sample(one, steps=5)):
        assert (changed - base).abs().max() > 1e-3


def test_what_it_cannot_make_is_refused(tmp_path):
    with pytest.raises(DataError, match="tokens, the model takes 512"):
        load().encode_prompts(["a red circle and " * 300])
    with pytest.raises(ModelError, match="7 frames: must be one more than a multiple of 4; correct models.t2i.frames"):
        load(7).latent_shape(32, 32)
    with pytest.raises(ModelError, match="30 x 32 pixels: both must be multiples of 8"):
        load().latent_shape(30, 32)


def test_a_second_transformer_is_refused(tmp_path):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny_wan.shared_folder(), dtype=torch.float32)
    parts = {**pipeline.components, "transformer_2": pipeline.transformer}
    WanPipeline(**parts, boundary_ratio=0.875).save_pretrained(tmp_path / "two")
    with pytest.raises(ModelError, match="has a second transformer, for low noise"):
        load(5, tmp_path / "two")


def test_the_adapter_loads_in_diffusers_and_peft_at_full_strength(tmp_path):
    family, adapter = load(), tmp_path / "adapter"
    names = put_on(family, adapter)
    for layer in ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2"):
        assert any(f"blocks.1.{layer}." in name for name in names)
    assert not any("proj_out" in name or "embedder" in name for name in names)
    noise = noise_of(family, 1, 32, 32)
    ours = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=3, guidance_scale=3.5)
    told = call(noise, PROMPTS[:1], 3.5, 5, 3)

    def made(pipeline):
        return pipeline(**told, output_type="latent").frames

    assert_others_read(adapter, ours, lambda: piped(tiny_wan.shared_folder()), made)
