"""Options of one embedded world are refused in the other one, before anything is computed or written; and so are models
of another kind than asked for."""

import re

import pytest
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import ModelError
from promptecho.models.locate import check_pipeline_path, check_vae_path
from promptecho.shipped import model_path, weights_of

TRAIN = ["--out", "model", "--log", "log.jsonl"]


@pytest.mark.parametrize(
    ("words", "useless"),
    [
        (["train-vlm", *TRAIN, "--relations", "0"], "--relations has no effect with --world shapes"),
        (["train-vlm", *TRAIN, "--world", "gallery", "--scores"], "--scores has no effect with --world gallery"),
        (["train-t2i", "--vae", "vae", *TRAIN, "--posters", "0.4"], "--posters has no effect with --world shapes"),
        (["measure", "--vae", "vae", "--drawings", "0"], "--vae, --drawings have no effect with --world shapes"),
        (
            ["measure", "--prompts", "0", "--adapter", "a"],
            "--adapter has no effect with --prompts 0, which generates no",
        ),
        (
            ["measure", "--world", "gallery", "--prompts", "0", "--adapter", "a", "--grid", "g.png"],
            "--adapter, --grid have no effect with --prompts 0",
        ),
    ],
)
def test_an_option_of_the_other_world_is_refused(words, useless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["shapes", *words], terminal_width=300)
    assert run.exit_code == 2
    assert useless in " ".join(run.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


SHAPES, GALLERY = weights_of("shapes"), weights_of("gallery")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--t2i", "shapes-third"], "shapes-third: is a VLM; text-to-image models ship as shapes and gallery"),
        (["--t2i", f"{SHAPES}/vlm"], "holds no text-to-image pipeline, as it has no model_index.json; it may be a VLM"),
        (
            ["--t2i", "shape"],
            "shape: no such folder of a text-to-image pipeline; correct the path; did you mean shapes?",
        ),
        (["--vlm", f"{SHAPES}/t2i"], "weights/t2i: holds a text-to-image pipeline, no VLM; give the folder of a VLM"),
        (["--vlm", "shape"], "shape: no such VLM folder"),
        (["--world", "gallery", "--t2i", "shapes-tenth", "--pairs", "0", "--prompts", "0"], "shapes-tenth: is a VLM;"),
        (
            ["--world", "gallery", "--vae", f"{GALLERY}/t2i"],
            "holds no VAE (its config.json names no AutoencoderKL); give ",
        ),
        (["--world", "gallery", "--vae", f"{GALLERY}/vlm"], "give a pipeline's folder vae, or one that train-vae"),
        (["--world", "gallery", "--vae", "nowhere"], "nowhere: no such VAE folder"),
    ],
)
def test_a_model_of_another_kind_is_refused_in_one_line(words, told):
    run = CliRunner().invoke(app, ["shapes", "measure", *words])
    assert isinstance(run.exception, ModelError) and told in str(run.exception) and "\n" not in str(run.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train-vae", *TRAIN, "--init", f"{GALLERY}/t2i"], f"holds no VAE .*; give {GALLERY}/t2i/vae"),
        (["train-t2i", *TRAIN, "--vae", f"{GALLERY}/vlm"], "holds no VAE "),
        (["train-t2i", *TRAIN, "--vae", f"{GALLERY}/t2i/vae", "--init", f"{SHAPES}/vlm"], "it may be a VLM"),
        (["train-vlm", *TRAIN, "--init", f"{SHAPES}/t2i"], "holds a text-to-image pipeline, no VLM"),
        (["train-vlm", *TRAIN, "--init", "nowhere"], "nowhere: no such VLM folder"),
    ],
)
def test_a_training_of_an_embedded_model_begins_with_none_of_another_kind(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["shapes", *words])
    assert isinstance(run.exception, ModelError) and re.search(told, str(run.exception))
    assert "\n" not in str(run.exception) and not list(tmp_path.iterdir())


def test_models_of_the_right_kind_pass():
    assert check_pipeline_path("gallery") == model_path("gallery", "t2i") == str(GALLERY / "t2i")
    assert check_vae_path(GALLERY / "t2i/vae") == str(GALLERY / "t2i/vae")
