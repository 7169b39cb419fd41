"""The Qwen-Image adapter against diffusers' own pipeline, image for image."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_qwenimage
import tiny_t2i
import torch
from adapter_of_family import assert_others_read, put_on
from forked import run
from hypothesis import given
from hypothesis import strategies as st
from tiny_experiment import Experiment

from promptecho.errors import DataError, ModelError
from promptecho.t2i.patches import pack, unpack
from promptecho.t2i.registry import load_family

PROMPTS = ["A red circle.", "Three blue squares.", "a photo of a star", "The image shows a ring and a black cross."]


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import QwenImagePipeline

    pipeline = QwenImagePipeline.from_pretrained(tiny_qwenimage.shared_folder(), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(**options):
    return load_family("qwenimage", str(tiny_qwenimage.shared_folder()), **options)


def noise_of(family, n: int, height: int, width: int) -> torch.Tensor:
    shape = (n, *family.latent_shape(height, width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_same_image(ours, theirs, size):
    """Equal up to rounding at the edge between two grey levels."""
    assert ours.size == size and ours.mode == "RGB"
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize("negative", ["", " ", "a blurry star"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.5])
@pytest.mark.parametrize("n, height, width", [(1, 32, 32), (4, 32, 32), (2, 64, 48)])
def test_sampler_equals_the_pipeline(pipeline, negative, guidance_scale, n, height, width):
    family = load(negative_prompt=negative)
    noise = noise_of(family, n, height, width)
    latents = family.sample(
        noise, family.encode_prompts(PROMPTS[:n]), num_inference_steps=5, guidance_scale=guidance_scale
    )
    call = {
        "prompt": PROMPTS[:n], "negative_prompt": [negative] * n, "true_cfg_scale": guidance_scale, "height": height,
        "width": width, "num_inference_steps": 5, "latents": pack(noise),
    }  # fmt: skip
    expected = unpack(pipeline(**call, output_type="latent").images, *noise.shape[-2:])
    # The pipeline makes two passes where we make one; lengths are padded differently.
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=5e-5)
    for ours, theirs in zip(family.decode(latents), pipeline(**call).images, strict=True):
        assert_same_image(ours, theirs, (width, height))


def test_prompts_can_be_padded_as_in_the_authors_script():
    """Masked padding is no change but for rounding; padding that takes part is one. Against the transformer itself."""
    family, masked, unmasked = (load(pad_prompts=name) for name in ("none", "masked", "unmasked"))
    x, t = noise_of(family, 2, 32, 32), torch.tensor([0.9, 0.4])
    cond = family.encode_prompts(PROMPTS[:2])
    plain, same, other = (one.velocity(x, t, cond) for one in (family, masked, unmasked))
    torch.testing.assert_close(same, plain, rtol=1e-4, atol=5e-5)
    assert (other - plain).abs().max() > 1e-3
    padded = torch.stack([torch.nn.functional.pad(one, (0, 0, 0, 512 - len(one))) for one in cond])
    heed = torch.arange(512)[None] < torch.tensor([[len(one)] for one in cond])
    for mask, found in ((heed, same), (None, other)):
        expected = family.transformer(
            hidden_states=pack(x), timestep=t, encoder_hidden_states=padded, encoder_hidden_states_mask=mask,
            img_shapes=[[(1, 2, 2)]] * 2, return_dict=False,
        )[0]  # fmt: skip
        torch.testing.assert_close(found, unpack(expected, *x.shape[-2:]), rtol=1e-5, atol=1e-5)


def test_the_comparison_could_fail():
    """Prompts, guidance, negative prompt and times change these latents by far more than the tolerance above."""
    family, other = load(), load(negative_prompt="three blue squares and a ring")
    noise = noise_of(family, 1, 32, 32)

    def sample(of, prompt, guidance_scale=3.5, steps=5):
        cond = of.encode_prompts([prompt])
        return of.sample(noise, cond, num_inference_steps=steps, guidance_scale=guidance_scale)

    base = sample(family, PROMPTS[0])
    for changed in (
        sample(family, PROMPTS[1]), sample(family, PROMPTS[0], 1.0), sample(other, PROMPTS[0]),
        sample(family, PROMPTS[0], steps=6),
    ):  # fmt: skip
        assert (changed - base).abs().max() > 1e-3


def test_a_prompt_does_not_feel_its_neighbours():
    family = load()
    noise = noise_of(family, 2, 32, 32)
    t = torch.tensor([0.7, 0.3])
    cond = family.encode_prompts([PROMPTS[0], PROMPTS[3]])
    assert len(cond[0]) != len(cond[1])
    both = family.velocity(noise, t, cond)
    for i in range(2):
        alone = family.velocity(noise[i : i + 1], t[i : i + 1], cond[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_unpack_undoes_pack(n, channels, h, w):
    latents = torch.arange(n * channels * 4 * h * w).view(n, channels, 2 * h, 2 * w)
    packed = pack(latents)
    assert packed.shape == (n, h * w, 4 * channels)
    assert torch.equal(unpack(packed, 2 * h, 2 * w), latents)


def test_slicing_and_tiling_reach_the_vae():
    family, plain = load(vae_slicing=True, vae_tiling=True), load()
    assert family.vae.use_slicing and family.vae.use_tiling and not plain.vae.use_slicing and not plain.vae.use_tiling
    latents = noise_of(plain, 2, 32, 32)
    for ours, theirs in zip(family.decode(latents), plain.decode(latents), strict=True):
        assert_same_image(ours, theirs, (32, 32))


def test_too_long_a_prompt_is_an_error():
    with pytest.raises(DataError, match="tokens, Qwen-Image takes 1024"):
        load().encode_prompts(["a red circle and " * 600])


def test_another_family_is_refused():
    with pytest.raises(ModelError, match="not a Qwen-Image pipeline|cannot load a Qwen-Image pipeline"):
        load_family("qwenimage", str(tiny_t2i.shared_folder()))


def test_the_adapter_loads_in_diffusers_and_peft_at_full_strength(tmp_path):
    from diffusers import QwenImagePipeline

    family, adapter = load(), tmp_path / "adapter"
    names = put_on(family, adapter)
    assert len({name.split(".lora_")[0] for name in names}) == 2 * len(family.descriptor.lora_targets)
    noise = noise_of(family, 1, 32, 32)
    ours = family.sample(noise, family.encode_prompts(PROMPTS[:1]), num_inference_steps=3, guidance_scale=3.5)
    told = {
        "prompt": PROMPTS[0], "negative_prompt": "", "true_cfg_scale": 3.5, "height": 32, "width": 32,
        "num_inference_steps": 3, "latents": pack(noise), "output_type": "latent",
    }  # fmt: skip

    def piped():
        pipeline = QwenImagePipeline.from_pretrained(tiny_qwenimage.shared_folder(), dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    assert_others_read(adapter, ours, piped, lambda pipeline: unpack(pipeline(**told).images, *noise.shape[-2:]))


def test_a_run_trains_it(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_qwenimage.shared_folder())
    vlm = {"path": str(experiment.vlm), "dtype": "float32"}
    t2i = {"family": "qwenimage", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32}
    sampling = {"guidance_scale": 3.5}
    config = experiment.config(
        sections={"models": {"t2i": t2i, "vlm": vlm}}, iterations=2, checkpoints=[2], sampling=sampling
    )
    assert "checkpoint 2 in" in run(experiment.train(config, 2, "a"))
