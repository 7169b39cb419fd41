"""What does not go with videos is refused with one line, before anything is made or loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import ExperimentConfig, load_experiment
from promptecho.errors import ConfigError

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
