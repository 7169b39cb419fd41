"""The small models of moving shapes: the VAE that is computed, and trainings through the real commands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import ModelError
from promptecho.files import read_jsonl
from promptecho.moving.grammar import QUERY, parse
from promptecho.moving.oracle import judge
from promptecho.moving.render import draw_frames
from promptecho.moving.train_vlm import SEEN, moving_tokenizer, prefix_ids
from promptecho.moving.vae import fit_vae
from promptecho.moving.world import random_movers
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.echo.options import EchoSection
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.training import Float32Muon
from promptecho.t2i.registry import load_family
from promptecho.video import Video

CAPTION = "A red circle moves left and a blue square stays still."


def test_a_video_that_went_through_the_vae_shows_what_it_showed():
    vae, rng = fit_vae(size=100), np.random.default_rng(0)
    for _ in range(4):
        movers = random_movers(rng, 1)
        pixels = to_tensor(draw_frames(movers, rng)).transpose(0, 1)[None]
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
            decoded = vae.decode(latents).sample[0].transpose(0, 1)
        assert latents.shape == (1, 16, 5, 8, 8) and (decoded - pixels[0].transpose(0, 1)).abs().mean() < 0.03
        values = ((decoded + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert judge(movers, [Image.fromarray(frame) for frame in values]).right


def test_muon_in_float32_goes_where_torchs_goes():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in ((24, 40), (40, 24))] for _ in "ab")
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn(one.shape, generator=generator)
        other.grad = one.grad.clone()
    Float32Muon(ours, 1e-2, 0.02).step()
    torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw").step()
    for one, other in zip(ours, theirs, strict=True):
        step, expected = one.detach() - 0.9998, other.detach() - 0.9998
        torch.testing.assert_close(step, expected, rtol=0, atol=0.03 * float(expected.abs().max()))


def command(*words: object) -> None:
    result = CliRunner().invoke(app, ["shapes", *map(str, words)])
    assert result.exit_code == 0, (result.output, result.exception)


def test_a_text_to_video_model_is_trained_and_makes_videos(tmp_path):
    words = ("--steps", 2, "--batch-size", 2, "--pool", 3)
    for name in ("one", "again"):
        command("train-t2v", "--out", tmp_path / name, "--log", tmp_path / f"{name}.jsonl", *words)
    weights = [
        (tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in ("one", "again")
    ]
    assert weights[0] == weights[1] and read_jsonl(tmp_path / "one.jsonl")[-1]["step"] == 2
    command(
        "train-t2v", "--init", tmp_path / "one", "--seed", 1, "--out", tmp_path / "on", "--log", tmp_path / "on.jsonl",
        *words,
    )  # fmt: skip
    for name in ("vae", "tokenizer"):
        for path in (tmp_path / "one" / name).iterdir():
            assert path.read_bytes() == (tmp_path / "on" / name / path.name).read_bytes(), path
    family = load_family("wan", str(tmp_path / "on"), frames=5)
    noise = torch.randn(1, *family.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    latents = family.sample(noise, family.encode_prompts([CAPTION]), num_inference_steps=2, guidance_scale=0.0)
    (video,) = family.decode(latents)
    assert isinstance(video, Video) and len(video.frames) == 5 and video.size == (32, 32)


def test_a_vlm_is_trained_that_the_echo_reads_videos_with(tmp_path):
    from promptecho.vlm import load_vlm
    from promptecho.vlm.inputs import batch_inputs, render_prompt

    command(
        "train-video-vlm", "--out", tmp_path / "vlm", "--log", tmp_path / "log.jsonl", "--steps", 1, "--batch-size", 2,
        "--pool", 2,
    )  # fmt: skip
    vlm = load_vlm(str(tmp_path / "vlm"))
    video = Video(draw_frames(parse(CAPTION), np.random.default_rng(0)))
    frames = [video.frames[k] for k in SEEN]
    text = render_prompt(vlm, QUERY, n_images=len(SEEN))
    ids = batch_inputs(vlm, [frames], [text], padding_side="right")["input_ids"][0].tolist()
    assert ids == prefix_ids(moving_tokenizer(), QUERY), "training asks as the reward does"
    echo = make_reward("echo", RewardContext(vlm=vlm, options=EchoSection(frames=len(SEEN))))
    assert echo([video], [CAPTION], ["a"]) == pytest.approx(echo([Video(frames)], [CAPTION], ["a"]))


@pytest.mark.parametrize(
    ("name", "init", "line"),
    [
        ("train-video-vlm", "shapes", "no qwen3_vl of width 96 to begin with; take shapes-third"),
        ("train-video-vlm", "shapes-clip", "no qwen3_vl of width 96 to begin with; take shapes-third"),
        ("train-t2v", "shapes", "--init shapes: holds"),
    ],
)
def test_models_of_another_kind_are_nothing_to_begin_with(tmp_path, name, init, line):
    words = ["shapes", name, "--init", init, "--out", str(tmp_path / "out"), "--log", str(tmp_path / "log.jsonl")]
    with pytest.raises(ModelError) as error:
        CliRunner().invoke(app, [*words, "--steps", "1", "--pool", "2"], catch_exceptions=False)
    assert line in str(error.value)
