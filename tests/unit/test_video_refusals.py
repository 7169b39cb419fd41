"""What does not go with videos is refused with one line, before anything is made or loaded."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from promptecho.audit.material import AuditImage
from promptecho.cli import app
from promptecho.commands.reward import _options
from promptecho.config import ExperimentConfig, load_experiment
from promptecho.config.descriptors import given_settings, reward_named
from promptecho.errors import ConfigError, DataError
from promptecho.files import write_jsonl
from promptecho.guard_images import GuardedImage, score_images
from promptecho.images import load_image
from promptecho.rewards.echo.options import EchoSection
from promptecho.train.dump import dump_reward
from promptecho.video import load_video

CLASSES = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
VAE = {"_class_name": "AutoencoderKLWan", "scale_factor_temporal": 4, "scale_factor_spatial": 4}


@pytest.fixture
def wan(tmp_path) -> Path:
    """The files of a model's folder that are looked at when an experiment is read."""
    for name, content in {"model_index.json": CLASSES, "vae/config.json": VAE}.items():
        place = tmp_path / "wan" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content))
    return tmp_path / "wan"


def of_videos(wan: Path, **t2i) -> dict:
    """The sections of an experiment of videos of 5 frames."""
    own = {"family": "wan", "path": str(wan), "height": 32, "width": 32, "frames": 5}
    return {"models": {"t2i": {**own, **t2i}, "vlm": {"path": "shapes"}}, "captions": {"prompts": "p.txt"}}


def read(wan: Path, sections: dict) -> ExperimentConfig:
    (wan.parent / "e.yaml").write_text(yaml.safe_dump(sections))
    return load_experiment(wan.parent / "e.yaml")


def problems(wan: Path, sections: dict) -> str:
    with pytest.raises(ConfigError) as error:
        read(wan, sections)
    return str(error.value)


def test_a_vae_without_its_factors_has_those_of_its_class(wan):
    """Older copies of Wan have no such keys; diffusers fills its defaults in, 4 and 8."""
    vae = wan / "vae" / "config.json"
    vae.write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    told = problems(wan, of_videos(wan, frames=34))
    assert "models.t2i.frames: 34 frames: must be one more than a multiple of 4, such as 33 or 37" in told
    told = problems(wan, of_videos(wan, height=480, width=830))
    assert "models.t2i.height: 480 x 830 pixels: both must be multiples of 16, such as 480 x 832" in told
    assert read(wan, of_videos(wan)).models.t2i.frames == 5
    vae.unlink()  # nothing is known of it
    read(wan, of_videos(wan, frames=34))


MADE = "reads images, and models.t2i.frames makes videos of 5 frames"


def test_what_reads_images_does_not_go_with_videos(wan):
    """One line each, also where the page of words is asked for; held-out captions are for what reads videos."""
    sections = of_videos(wan) | {"words": True, "rewards": [{"echo": {"frames": 8}}]}
    sections |= {"image_sets": {"g": {"benchmark": "geneval", "heldout": 1}}, "guards": [{"echo": {}}]}
    told = problems(wan, sections)
    assert f"words: the page of words {MADE}; remove it" in told
    assert f"guards.0.name: a guard {MADE}; remove it" in told
    assert "rewards.0.echo.frames: 8, but samples have 5 frames (models.t2i.frames); remove it" in told
    assert "image_sets.g.heldout: held-out captions are no geneval prompts; set benchmark: moving_shapes" in told
    assert read(wan, of_videos(wan) | {"rewards": [{"echo": {"frames": 5}}]}).rewards[0].options.frames == 5


@pytest.mark.parametrize(
    ("family", "fix"),
    [
        ({"family": "wan", "frames": 1}, "Wan makes images here; raise models.t2i.frames"),
        ({"family": "zimage", "frames": 1}, "Z-Image makes images here; take another benchmark, or a family that"),
    ],
)
def test_what_reads_videos_does_not_go_with_images(wan, family, fix):
    sections = of_videos(wan, **family)
    sections["models"]["t2i"] |= {} if family["family"] == "wan" else {"path": "shapes", "height": 64, "width": 64}
    sections |= {
        "rewards": [{"echo": {"frames": 8}}],
        "image_sets": {"m": {"benchmark": "moving_shapes", "prompts": "p.jsonl"}},
        "benchmarks": {"m": {"scorer": "moving_shapes", "image_set": "m", "backend": "moving"}},
    }
    told = problems(wan, sections)
    assert f"image_sets.m.benchmark: moving_shapes reads videos, and {fix}" in told
    assert "rewards.0.echo.frames: 8, but samples are images (models.t2i.frames); remove it" in told


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code and isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


def edits(folder: Path) -> Path:
    """An experiment of a model that edits images."""
    t2i = {"family": "qwenimage_edit", "path": "some/model"}
    content = {"models": {"t2i": t2i, "vlm": {"path": "shapes"}}, "captions": {"prompts": "edits.jsonl"}}
    (folder / "edits.yaml").write_text(yaml.safe_dump(content))
    return folder / "edits.yaml"


def test_try_and_bench_are_for_images_from_text(wan, tmp_path):
    (tmp_path / "videos.yaml").write_text(yaml.safe_dump(of_videos(wan)))
    tried = ["try", "A red circle.", "--adapter", str(tmp_path), "--out", str(tmp_path / "out")]
    made = "is for images, and Wan makes videos"
    fix = "give an experiment file with models.t2i.frames: 1 to --config"
    assert refused(*tried, "--config", str(tmp_path / "videos.yaml")) == f"promptecho try: {made}; {fix}"
    assert refused(*tried, "--model", str(wan)) == f"promptecho try: {made}; {fix}"
    bench = ["bench", "--out", str(tmp_path / "bench.json"), "--config"]
    assert refused(*bench, str(tmp_path / "videos.yaml")).startswith(f"promptecho bench: {made}; not to be had yet")
    told = "has no images for its prompts, and Qwen-Image-Edit edits one with each; not to be had yet"
    assert refused(*tried, "--config", str(edits(tmp_path))).startswith(f"promptecho try: {told}")
    assert refused(*bench, str(edits(tmp_path))).startswith(f"promptecho bench: {told}")
    assert not (tmp_path / "out").exists() and not (tmp_path / "bench.json").exists()


def animated(path: Path, *frames: Image.Image) -> Path:
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def dot(colour: str, left: int) -> Image.Image:
    """A disc on nothing."""
    image = Image.new("RGBA", (40, 20))
    ImageDraw.Draw(image).ellipse([left, 5, left + 9, 14], fill=colour)
    return image


def test_frames_are_read_by_the_rules_for_images(tmp_path):
    """Transparency shows the background, and frames are shrunk, as those of an image of the same pixels."""
    pictures = [dot("red", 2), dot("blue", 20)]
    path = animated(tmp_path / "sticker.png", *pictures)
    for options in ({}, {"background": "green", "max_pixels": 200}):
        read = load_video(path, **options).frames
        for index, (frame, picture) in enumerate(zip(read, pictures, strict=True)):
            picture.save(tmp_path / f"{index}.png")
            alone = load_image(tmp_path / f"{index}.png", **options)
            assert (frame.size, frame.tobytes()) == (alone.size, alone.tobytes())


def test_nothing_takes_the_first_frame_of_a_video_for_the_whole(tmp_path):
    path = animated(tmp_path / "video.png", dot("red", 2), dot("blue", 20))
    told = "video.png: a video of 2 frames, and {} reads images; give an image instead"
    with pytest.raises(DataError, match=told.format("the audit")):
        AuditImage("a", path).open()
    guarded = [GuardedImage("p", 0, "A red circle.", path)]
    with pytest.raises(DataError, match=told.format("guard echo")):
        score_images("echo", None, guarded, tmp_path / "work", 1, settings="s")  # type: ignore[arg-type]
    folder = tmp_path / "images/base/0/s"
    (folder / "shards").mkdir(parents=True)
    path.rename(folder / "video.png")
    row = {"prompt_id": "p", "prompt": "A red circle.", "image_index": 0, "filename": "video.png"}
    write_jsonl(folder / "shards/0.jsonl", [row])
    content = {"models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}}, "captions": {"prompts": "p.txt"}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    asked = ["figures", "words", str(folder), "--config", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "w.html")]
    result = CliRunner().invoke(app, asked)
    assert told.format("figures words") in str(result.exception) and not (tmp_path / "w.html").exists()


def test_scorers_of_images_refuse_a_folder_of_videos(tmp_path):
    (tmp_path / "made").mkdir()
    animated(tmp_path / "made/0.png", dot("red", 2), dot("blue", 20))
    write_jsonl(tmp_path / "p.jsonl", [{"data_id": "0", "caption": "A red circle."}])
    given = ["--images", str(tmp_path / "made"), "--prompts", str(tmp_path / "p.jsonl"), "--images-per-prompt", "1"]
    of = ["--experiment", "e", "--run", "base", "--step", "0", "--out", str(tmp_path / "scores.json")]
    result = CliRunner().invoke(app, ["score", "--benchmark", "captions", *given, *of])
    told = "0.png: a video of 2 frames, and oracle of captions reads images; give an image instead"
    assert told in str(result.exception) and not (tmp_path / "scores.json").exists()


def test_a_reward_that_failed_is_scored_again_with_its_settings(tmp_path):
    options = EchoSection(frames=3, reduction="sum")
    facts = {"reward": "echo", "query": "What?", "label": "a b", "settings": given_settings(options)}
    command = shlex.split(dump_reward(tmp_path / "dump", Image.new("RGB", (8, 8)), facts, "some/vlm"))
    given = [word.removeprefix("--set=") for word in command if word.startswith("--set=")]
    assert _options(reward_named("echo"), [], {}, given) == options
