"""Qwen-Image-Edit against diffusers' own pipeline, image for image; its embeddings on disk, its adapters in diffusers.

Source images are shown smaller than the real 384 x 384 and 1024 x 1024 pixels, to both sides: those take a minute.
"""

from __future__ import annotations

from functools import partial

import pytest
import tiny_edit
import torch
from adapter_of_family import put_on
from test_t2i_qwenimage import assert_same_image, noise_of

from promptecho.config.families import family_in
from promptecho.errors import DataError
from promptecho.source_images import EditPrompt, SourceImage
from promptecho.t2i.patches import pack, unpack
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.qwenimage_edit.model import assembled, parts_of
from promptecho.t2i.registry import load_family

TEXTS = ["make it blue", "A red circle.", "three blue squares and a star"]
SIZES = [(60, 40), (30, 90), (64, 64)]  # of the source images


@pytest.fixture(autouse=True)
def smaller_sources(monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 112 * 112)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)


def load(kind: bool = False, **options):
    return load_family("qwenimage_edit", str(tiny_edit.shared_folder(kind)), **options)


def their(family, kind: bool = False):
    """diffusers' pipeline; without torchvision it cannot load the processor itself."""
    from diffusers import QwenImageEditPlusPipeline

    folder, processor = tiny_edit.shared_folder(kind), family.pipeline.processor
    pipeline = QwenImageEditPlusPipeline.from_pretrained(folder, processor=processor, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sources(folder, sizes=SIZES, colour: str = "red") -> list[SourceImage]:
    made = []
    for index, (width, height) in enumerate(sizes):
        path = folder / f"{colour}{index}.png"
        tiny_edit.picture(width, height, colour).save(path)
        made.append(SourceImage.at(path))
    return made


def call_of(prompt: EditPrompt, noise: torch.Tensor, negative: str, guidance_scale: float) -> dict:
    height, width = (8 * side for side in noise.shape[-2:])
    return {
        "image": [prompt.source.load()], "prompt": prompt.text, "negative_prompt": negative, "height": height,
        "true_cfg_scale": guidance_scale, "width": width, "num_inference_steps": 3, "latents": pack(noise[None]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", [False, True])
@pytest.mark.parametrize("guidance_scale, negative", [(1.0, ""), (3.5, "a blurry star")])
def test_the_sampler_equals_the_pipeline(tmp_path, kind, guidance_scale, negative):
    """A batch of ours, with sources of several shapes and texts of several lengths, against calls for one image."""
    family = load(kind, negative_prompt=negative)
    pipeline = their(family, kind)
    prompts = [EditPrompt(*one) for one in zip(TEXTS, sources(tmp_path), strict=True)]
    noise = noise_of(family, 3, 32, 48)
    cond = family.encode_prompts(prompts)
    latents = family.sample(noise, cond, num_inference_steps=3, guidance_scale=guidance_scale)
    for index, prompt in enumerate(prompts):
        call = partial(pipeline, **call_of(prompt, noise[index], negative, guidance_scale))
        expected = unpack(call(output_type="latent").images, *noise.shape[-2:])
        torch.testing.assert_close(latents[index : index + 1], expected, rtol=1e-4, atol=5e-5)
    assert_same_image(family.decode(latents)[2], call().images[0], (48, 32))


def test_text_source_and_negative_prompt_all_matter(tmp_path):
    family, other = load(), load(negative_prompt="three blue squares")
    (red,), (blue,) = sources(tmp_path, SIZES[:1]), sources(tmp_path, SIZES[:1], "blue")
    noise = noise_of(family, 1, 32, 32)

    def sample(of, text, source, guidance_scale=3.5):
        cond = of.encode_prompts([EditPrompt(text, source)])
        return of.sample(noise, cond, num_inference_steps=2, guidance_scale=guidance_scale)

    base = sample(family, TEXTS[0], red)
    for changed in (
        sample(family, TEXTS[1], red), sample(family, TEXTS[0], blue), sample(family, TEXTS[0], red, 1.0),
        sample(other, TEXTS[0], red),
    ):  # fmt: skip
        assert (changed - base).abs().max() > 1e-3


def test_gradients_reach_the_transformer_and_neighbours_are_not_felt(tmp_path):
    family = load()
    prompts = [EditPrompt(*one) for one in zip(TEXTS, sources(tmp_path), strict=True)]
    cond, noise, t = family.encode_prompts(prompts), noise_of(family, 3, 32, 32), torch.tensor([0.9, 0.5, 0.2])
    family.transformer.requires_grad_(True)
    both = family.velocity(noise, t, cond)
    both.sum().backward()
    assert family.transformer.transformer_blocks[0].attn.to_q.weight.grad.abs().max() > 0
    for index in range(3):
        alone = family.velocity(*(value[index : index + 1] for value in (noise, t)), cond[index : index + 1])
        torch.testing.assert_close(both[index : index + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_tensor_holds_texts_and_source(dtype):
    text, negative = torch.randn(300, 32, dtype=dtype), torch.randn(7, 32, dtype=dtype)
    source = torch.randn(4, 10, 130).to(dtype)
    parts = parts_of(assembled(text, negative, source), 16)
    assert torch.equal(parts.text, text) and torch.equal(parts.negative, negative)
    assert (parts.rows, parts.columns) == (5, 65) and torch.equal(parts.source, pack(source[None])[0])


def test_embeddings_on_disk_are_those_of_prompt_and_image(tmp_path):
    """The same image elsewhere is the same; another image, or another negative prompt, is not."""
    family = load()
    (red,), (blue,) = sources(tmp_path, SIZES[:1]), sources(tmp_path, SIZES[:1], "blue")
    (copied := tmp_path / "copy.png").write_bytes(red.path.read_bytes())
    cache = PromptCache(family, tmp_path / "cache")
    first = cache.encode([EditPrompt(TEXTS[0], red), EditPrompt(TEXTS[0], blue)])
    assert not torch.equal(*first)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
    again = PromptCache(load(), tmp_path / "cache").encode([EditPrompt(TEXTS[0], SourceImage.at(copied))])
    assert torch.equal(again[0], first[0])
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
    other = PromptCache(load(negative_prompt="a star"), tmp_path / "cache").encode([EditPrompt(TEXTS[0], red)])
    assert not torch.equal(other[0][: len(first[0])], first[0])


def test_what_cannot_be_edited_is_refused(tmp_path):
    family = load()
    (source,) = sources(tmp_path, SIZES[:1])
    with pytest.raises(DataError, match="prompt 'make it blue': has no source image, but Qwen-Image-Edit edits one"):
        family.encode_prompts(["make it blue"])
    with pytest.raises(DataError, match="tokens, Qwen-Image-Edit takes 1024"):
        family.encode_prompts([EditPrompt("a red circle and " * 600, source)])
    tiny_edit.picture(60, 40, "green").save(source.path)
    with pytest.raises(DataError, match=r"red0\.png: is another file than when this began"):
        source.load()
    tiny_edit.picture(630, 30).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long\.png: 630 x 30 pixels: one side is more than 20 times the other"):
        SourceImage.at(tmp_path / "long.png").load()


def test_its_folder_is_told_from_qwen_image():
    assert family_in(tiny_edit.shared_folder()) == "qwenimage_edit"


def test_the_adapter_loads_in_diffusers_at_full_strength(tmp_path):
    family = load()
    plain, pipeline = load(), their(family)
    put_on(family, tmp_path / "adapter")
    prompt = EditPrompt(TEXTS[0], sources(tmp_path, SIZES[:1])[0])
    noise, cond = noise_of(family, 1, 32, 32), family.encode_prompts([prompt])
    ours = family.sample(noise, cond, num_inference_steps=3, guidance_scale=3.5)
    pipeline.load_lora_weights(str(tmp_path / "adapter"))
    theirs = pipeline(**call_of(prompt, noise[0], "", 3.5), output_type="latent").images
    torch.testing.assert_close(ours, unpack(theirs, *noise.shape[-2:]), rtol=1e-3, atol=1e-4)
    before = plain.sample(noise, cond, num_inference_steps=3, guidance_scale=3.5)
    assert (ours - before).abs().max() > 0.01
