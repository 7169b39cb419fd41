"""Commands that take files take many, as shells write them; all that are faulty are named at once."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import DataError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index, name in enumerate(("a.png", "b b.png", "c.jpg")):
        Image.new("RGB", (64, 64), (80 * index, 200, 30)).save(folder / name)
    return folder


def rewards(*words) -> dict[str, float]:
    run = CliRunner().invoke(app, ["reward", "--vlm", "shapes", "--json", *map(str, words)])
    assert run.exit_code == 0, run.output + str(run.exception)
    return {row["image"].rsplit("/", 1)[1]: row["reward"] for row in json.loads(run.stdout)}


def test_rewards_of_many_images_and_labels(images, tmp_path):
    files = sorted(images.iterdir())
    one, two = "A red circle.", "A blue square."
    plain = rewards(*files, "--label", one)
    assert list(plain) == ["a.png", "b b.png", "c.jpg"]
    assert rewards("--image", *files, "--label", one) == plain
    assert rewards("--image", files[0], "--label", one, "--image", files[1], files[2]) == plain
    (tmp_path / "l.csv").write_text(f"Image;Label\nb b.png;{two}\n{files[0]};{one}\nc.jpg;{one}\n")
    (tmp_path / "l.TXT").write_bytes(f"{one}\r\n{two}\r\n{one}\r\n".encode("utf-16"))
    labelled = rewards(*files, "--labels", tmp_path / "l.csv")
    assert labelled == rewards(*files, "--labels", tmp_path / "l.TXT")
    assert {name for name in plain if abs(plain[name] - labelled[name]) > 1e-4} == {"b b.png"}


@pytest.mark.parametrize(("words", "message"), [
    (["reward", "--vlm", "shapes", "--label", "x"], "give the files, behind --image or without it"),
    (["reward", "--vlm", "shapes", "IMAGES/a.png"], "give either --label TEXT, for all images, or --labels FILE"),
    (["reward", "--vlm", "shapes", "no.png", "IMAGES/a.png", "nor.png", "--label", "x"],
     "no.png: no such file or folder\nnor.png: no such file or folder"),
    (["reward", "--vlm", "shapes", "IMAGES/text.txt", "IMAGES/a.png", "IMAGES/cut.png", "--label", "x"],
     "text.txt: .*\n.*cut.png: "),
    (["reward", "--vlm", "shapes", "IMAGES/a.png", "IMAGES/b b.png", "--labels", "IMAGES/text.txt"],
     "text.txt: 1 label for 2 images; give one line for each, in order"),
    (["reward", "--vlm", "shapes", "IMAGES/a.png", "IMAGES/b b.png", "--labels", "IMAGES/l.jsonl"],
     "l.jsonl:1: needs image and label\n.*no label for .*/a.png .*\n.*no label for .*/b b.png"),
    (["caption", "merge", "--out", "c.h5", "--heldout-out", "h.jsonl"], "give the files, behind --shards or without"),
    (["caption", "merge", "1.h5", "--shards", "2.h5", "--out", "c.h5", "--heldout-out", "h.jsonl"],
     "2.h5: no such file or folder\n1.h5: no such file or folder"),
    (["tables", "--scores", "x.json", "y.json", "--print"], "x.json: no such file or folder\ny.json: no such"),
    (["tables", "--print"], "give the files, behind --scores or without it"),
    (["figures", "curves", "x", "y", "--benchmark", "b", "--out", "o"], "x: no such file or folder\ny: no such file"),
    (["models", "list", "x.yaml", "--config", "y.yaml", "z.yaml"],
     "y.yaml: no such file or folder\nx.yaml: no such file or folder\nz.yaml: no such file or folder"),
    (["benchmarks", "pack", "x", "y", "--out", "o.json"], "--out tells of one folder; give one, or leave --out out"),
    (["benchmarks", "pack", "x", "y"], "x: no such file or folder\ny: no such file or folder"),
    (["figures", "samples", "x", "y", "--out", "o.png"], "x: no such file or folder\ny: no such file"),
])  # fmt: skip
def test_what_is_missing_or_faulty_is_told_for_all_files(images, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("one label\n")
    (tmp_path / "l.jsonl").write_text('{"image": "a.png"}\n')
    whole = (images / "a.png").read_bytes()
    for name, content in (("a.png", whole), ("b b.png", whole), ("cut.png", whole[:60])):
        (tmp_path / name).write_bytes(content)
    run = CliRunner().invoke(app, [word.replace("IMAGES", str(tmp_path)) for word in words])
    if isinstance(run.exception, DataError):
        with pytest.raises(DataError, match=message):
            raise run.exception
    else:
        assert run.exit_code == 2 and message in " ".join(run.output.split()), run.output
