"""Videos: files, what the echo makes of their frames, what refuses them, and a training through the real command."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_vlm
import tiny_wan
from PIL import Image
from tiny_experiment import Experiment
from typer.testing import CliRunner

from promptecho.archives import Archive, ArchivedImage, write_archive
from promptecho.benchmarks.captions.prompts import read_prompts
from promptecho.benchmarks.moving_shapes.prompts import write_moving_prompts
from promptecho.cli import app
from promptecho.config import load_experiment
from promptecho.config.slices import slice_digest
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_jsonl, write_json, write_jsonl
from promptecho.moving.grammar import corrupt, parse, write
from promptecho.moving.oracle import judge
from promptecho.moving.render import draw_frames
from promptecho.moving.world import MOTIONS, Mover, random_movers
from promptecho.rewards import RewardContext, make_reward
from promptecho.scores import read_scores
from promptecho.train.data import TrainingPrompt
from promptecho.train.loop import train_segment
from promptecho.train.placement.messages import receive_images, receive_json, send_images
from promptecho.video import Video, count_frames, evenly, frames_of, load_video

CAPTION = "A red circle moves left and a blue square stays still."


def drawn(caption: str = CAPTION, seed: int = 0) -> Video:
    return Video(draw_frames(parse(caption), np.random.default_rng(seed)))


def pixels(video: Video) -> list[bytes]:
    return [frame.tobytes() for frame in video.frames]


def test_a_file_gives_every_frame_back_also_equal_ones(tmp_path):
    still = drawn("A red circle is not moving.")
    assert len(set(pixels(still))) == 1
    for name, video in {"still": still, "moving": drawn()}.items():
        path, again = tmp_path / f"{name}.png", io.BytesIO()
        video.save(path, format="PNG")
        video.save(again, format="PNG")
        assert path.read_bytes() == again.getvalue()
        assert count_frames(path) == 5 and pixels(load_video(path)) == pixels(video)
        assert Image.open(path).convert("RGB").tobytes() == pixels(video)[0]
        write_archive(tmp_path / f"{name}.zip", [("a.png", path.read_bytes())])
        archived = ArchivedImage(Archive(tmp_path / f"{name}.zip"), "a.png")
        assert pixels(load_video(archived)) == pixels(video)


def test_an_image_is_no_video(tmp_path):
    drawn().frames[0].save(tmp_path / "one.png")
    assert count_frames(tmp_path / "one.png") == count_frames(tmp_path / "none.png") == 1
    with pytest.raises(DataError, match=r"one.png: an image, where a video is expected"):
        load_video(tmp_path / "one.png")


def test_frames_are_spread_evenly_with_both_ends():
    frames = [Image.new("RGB", (1, 1), (k, 0, 0)) for k in range(9)]

    def reds(most: int | None) -> list[int]:
        return [frame.getpixel((0, 0))[0] for frame in frames_of(evenly(Video(frames), most))]

    assert reds(None) == reds(9) == list(range(9)) and reds(2) == [0, 8] and reds(3) == [0, 4, 8]
    assert reds(5) == [0, 2, 4, 6, 8] and reds(4) == [0, 3, 5, 8]
    assert evenly(frames[0], 2) is frames[0]


def test_reward_servers_get_all_frames():
    from multiprocessing import Pipe

    here, there = Pipe()
    video, image = drawn(), drawn().frames[1]
    prompts = [TrainingPrompt("a", "x"), TrainingPrompt("b", "y")]
    send_images(here, [video, image], prompts, ["1", "2"])
    images, received, _ = receive_images(there, receive_json(there)["images"])
    assert pixels(images[0]) == pixels(video) and images[1].tobytes() == image.tobytes() and received == prompts


@pytest.mark.parametrize("seed", range(6))
def test_the_oracle_tells_what_moves_where(seed):
    rng = np.random.default_rng(seed)
    movers = random_movers(rng)
    assert parse(write(movers, seed % 2)) == movers
    frames = draw_frames(movers, rng)
    assert judge(movers, frames).right
    assert not judge(corrupt(movers, rng), frames).right
    wrong = judge([Mover(one.shape, one.color, "up" if one.motion != "up" else "down") for one in movers], frames)
    assert wrong.objects and not wrong.motions and (wrong.colors, wrong.ways) == (1, 0)
    assert not judge(movers, [*frames[:-1], Image.new("RGB", frames[0].size, "white")]).objects


def test_other_captions_are_not_in_the_language():
    with pytest.raises(DataError, match="'a red ring moves left' is not a clause of the language of moving shapes"):
        parse("A red ring moves left.")
    assert {parse(f"A red circle moves {way}.")[0].motion for way in ("left", "right", "up", "down")} == {*MOTIONS} - {
        "still"
    }


def test_the_benchmark_scores_files_of_videos(tmp_path):
    assert write_moving_prompts(2, 0, tmp_path / "prompts.jsonl") == 4
    prompts, rows = read_prompts(tmp_path / "prompts.jsonl"), []
    for index, prompt in enumerate(prompts):
        movers = parse(prompt.caption)
        if index == 1:
            movers = (Mover(movers[0].shape, movers[0].color, "up" if movers[0].motion != "up" else "left"),)
        video = Video(draw_frames(movers, np.random.default_rng(index)))
        (video if index < 3 else video.frames[0]).save(tmp_path / f"{index}.png")
        rows.append({"data_id": prompt.data_id, "caption": prompt.caption, "filename": f"{index}.png"})
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    options = {
        "benchmark": "moving_shapes", "scorer": "moving_shapes", "backend": "moving", "mode": "official",
        "images": tmp_path, "prompts": tmp_path / "prompts.jsonl", "images-per-prompt": 1,
        "out": tmp_path / "scores.json", "experiment": "e", "run": "base", "step": 0,
    }  # fmt: skip
    given = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    result = CliRunner().invoke(app, ["score", *given])
    assert result.exit_code == 0, result.output
    scores = read_scores(tmp_path / "scores.json")
    assert [item.outcome for item in scores.items] == [1.0, 0.0, 1.0, None]
    assert scores.summary["part objects"] == 1.0 and math.isclose(scores.summary["part motions"], 2 / 3)
    assert scores.summary["part colors"] == 1.0 and math.isclose(scores.summary["part ways"], 2 / 3)


def test_what_is_less_strict_knows_a_mover_by_its_colour():
    shown = draw_frames(parse("A red circle moves left and a blue square stays still."), np.random.default_rng(0))
    verdict = judge(parse("A red triangle moves left and a blue cross moves up."), shown)
    assert (verdict.objects, verdict.motions, verdict.colors, verdict.ways) == (False, False, 1.0, 0.5)
    same = judge(parse("A red triangle moves left and a red circle moves left."), shown)
    assert (same.colors, same.ways) == (0.0, 0.5)


def test_the_echo_reads_frames_in_their_order(tmp_path):
    from promptecho.vlm import load_vlm

    vlm = load_vlm(tiny_vlm.shared_folder())
    video = drawn()
    backwards, one = Video(video.frames[::-1]), video.frames[0]
    echo = make_reward("echo", RewardContext(vlm=vlm, batch_size=4))
    values = echo([video, backwards, one], [CAPTION] * 3, ["a", "b", "c"])
    assert len({round(value, 6) for value in values}) == 3
    alone = [echo([image], [CAPTION], ["a"])[0] for image in (video, backwards, one)]
    assert values == pytest.approx(alone, abs=1e-5)
    from promptecho.rewards.echo.options import EchoSection

    some = make_reward("echo", RewardContext(vlm=vlm, options=EchoSection(frames=2)))
    assert some([video], [CAPTION], ["a"]) == pytest.approx(
        echo([Video([video.frames[0], video.frames[-1]])], [CAPTION], ["a"]), abs=1e-5
    )
    details = echo.details([video], [CAPTION], ["a"])
    assert details.rewards[0] == pytest.approx(values[0], abs=1e-5)


def sections(experiment: Experiment, **t2i) -> dict:
    own = {"family": "wan", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32, "frames": 5}
    return {"models": {"t2i": {**own, **t2i}, "vlm": {"path": str(experiment.vlm), "dtype": "float32"}}}


def unmade(folder: Path) -> Experiment:
    """An experiment of videos whose models are as much as a configuration reads of them: no library is imported."""
    write_json(folder / "wan" / "vae" / "config.json", {"scale_factor_temporal": 4, "scale_factor_spatial": 4})
    return Experiment(folder, t2i=folder / "wan", vlm=folder / "vlm")


def test_what_reads_images_is_refused_with_one_line_each(tmp_path):
    experiment = unmade(tmp_path)
    further = {
        "rewards": [{"name": "echo"}, {"name": "pickscore"}],
        "image_sets": {"g": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 0}}},
        "benchmarks": {"g": {"scorer": "geneval", "image_set": "g", "backend": "oracle"}},
    }
    with pytest.raises(ConfigError) as error:
        load_experiment(experiment.config(sections=sections(experiment) | further))
    made = "reads images, and models.t2i.frames makes videos of 5 frames"
    for line in (
        f"rewards.1.name: pickscore {made}; take echo",
        f"image_sets.g.benchmark: geneval {made}; take moving_shapes",
        f"benchmarks.g.backend: oracle of geneval {made}",
    ):
        assert line in str(error.value)
    with pytest.raises(ConfigError, match="models.t2i.frames: 7 frames: must be one more than a multiple of 4, such"):
        load_experiment(experiment.config(sections=sections(experiment, frames=7)))
    with pytest.raises(ConfigError, match="models.t2i.height: 36 x 32 pixels: both must be multiples of 8"):
        load_experiment(experiment.config(sections=sections(experiment, height=36)))


def test_a_model_of_images_makes_no_videos_and_its_digests_are_what_they_were(tmp_path):
    experiment = unmade(tmp_path)
    plain = experiment.config()
    t2i = {"family": "zimage", "path": str(experiment.t2i), "dtype": "float32", "height": 32, "width": 32, "frames": 1}
    models = {"models": {"t2i": t2i, "vlm": {"path": str(experiment.vlm), "dtype": "float32"}}}
    same = experiment.config("same", sections=models)
    assert slice_digest(load_experiment(plain), "train", "r") == slice_digest(load_experiment(same), "train", "r")
    t2i["frames"] = 5
    with pytest.raises(ConfigError, match="models.t2i.frames: Z-Image makes images; remove it"):
        load_experiment(experiment.config("other", sections=models))


def test_a_reward_of_images_refuses_a_video(tmp_path):
    drawn().save(tmp_path / "video.png")
    result = CliRunner().invoke(app, ["reward", str(tmp_path / "video.png"), "--name", "clipscore", "--label", "x"])
    assert result.exit_code and "a video of 5 frames, and clipscore reads images" in str(result.exception)


def test_a_training_of_videos_goes_on_to_the_same_bits_and_makes_them(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_wan.shared_folder())
    lines = [write(random_movers(np.random.default_rng(k), 1), k % 2) for k in range(2)]
    prompts = [{"data_id": str(k), "caption": line} for k, line in enumerate(lines)]
    write_jsonl(tmp_path / "videos.jsonl", prompts)
    image_set = {"benchmark": "moving_shapes", "prompts": str(tmp_path / "videos.jsonl"), "images_per_prompt": 1}
    own = sections(experiment) | {"image_sets": {"v": image_set | {"guidance_scale": 2.0, "num_inference_steps": 2}}}
    config = experiment.config(
        sections=own, iterations=2, checkpoints=[1, 2], sampling={"num_inference_steps": 2}, images_per_prompt=2,
        passes=1,
    )  # fmt: skip
    assert train_segment(experiment.segment("whole", config, 2))
    assert train_segment(experiment.segment("parts", config, 1))
    assert train_segment(experiment.segment("parts", config, 2, resume=tmp_path / "parts" / "1"))
    for name in ("adapter/pytorch_lora_weights", "state/weights", "state/exp_avg", "state/exp_avg_sq", "state/ema"):
        one, other = (tmp_path / way / "2" / f"{name}.safetensors" for way in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes(), name
    made = CliRunner().invoke(app, [
        "generate", "--config", str(config), "--image-set", "v", "--run", "r", "--step", "2",
        "--adapter", str(tmp_path / "whole" / "2" / "adapter"), "--prompts", str(tmp_path / "videos.jsonl"),
        "--out", str(tmp_path / "made"), "--work", str(tmp_path / "work"),
    ])  # fmt: skip
    assert made.exit_code == 0, made.output
    made = [tmp_path / "made" / row["filename"] for row in read_jsonl(tmp_path / "made" / "metadata.jsonl")]
    assert [count_frames(path) for path in made] == [5] * len(lines) and load_video(made[0]).size == (32, 32)
