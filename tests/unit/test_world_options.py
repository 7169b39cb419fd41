"""Options of one embedded world are refused in the other one, before anything is computed or written."""

import pytest
from typer.testing import CliRunner

from promptecho.cli import app

TRAIN = ["--out", "model", "--log", "log.jsonl"]


@pytest.mark.parametrize(
    ("words", "useless"),
    [
        (["train-vlm", *TRAIN, "--relations", "0"], "--relations has no effect with --world shapes"),
        (["train-vlm", *TRAIN, "--world", "gallery", "--scores"], "--scores has no effect with --world gallery"),
        (["train-t2i", "--vae", "vae", *TRAIN, "--posters", "0.4"], "--posters has no effect with --world shapes"),
        (["measure", "--vae", "vae", "--drawings", "0"], "--vae, --drawings have no effect with --world shapes"),
    ],
)
def test_an_option_of_the_other_world_is_refused(words, useless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["shapes", *words], terminal_width=300)
    assert run.exit_code == 2
    assert useless in " ".join(run.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
