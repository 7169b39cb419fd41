"""Generation into ZIP files: the same images as files, the same archive whatever happened on the way."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from forked import run
from PIL import Image
from test_generate import (  # noqa: F401
    IMAGES,
    SET,
    experiment,
    generate_again,
    job,
    kill_twice,
    png_bytes,
    recorded,
    whole,
    write_config,
)
from test_generate import config as files_config

from promptecho.archives import Archive
from promptecho.benchmarks.geneval.layout import list_images
from promptecho.benchmarks.geneval.prompts import read_prompts
from promptecho.config import load_experiment, slice_digest
from promptecho.errors import DataError
from promptecho.files import read_jsonl
from promptecho.generate import generate_shard
from promptecho.images import load_image

config = files_config  # the fixture of images as files


@pytest.fixture(scope="module")
def zipping(experiment) -> Path:  # noqa: F811
    return write_config(experiment, "zipping", storage="zip")


def contents(out: Path) -> dict[str, bytes]:
    """The images in all archives of a folder, by name."""
    archives = [Archive(path) for path in sorted(out.glob("shards/*.zip"))]
    return {name: archive.read(name) for archive in archives for name in archive.names if name.endswith(".png")}


def test_the_images_are_those_of_files(experiment, zipping, config, whole):  # noqa: F811
    generate_shard(job(experiment, zipping, "zipped"))
    out = experiment.folder / "zipped"
    assert contents(out) == png_bytes(whole) and not list(out.rglob("*.png"))
    assert (out / "shards/0.jsonl").read_bytes() == (whole / "shards/0.jsonl").read_bytes()
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["0.jsonl", "0.zip"]
    with zipfile.ZipFile(out / "shards/0.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        names = archive.namelist()
    assert names[:3] == ["00000/metadata.jsonl", "00000/samples/00000.png", "00000/samples/00001.png"]
    subprocess.run(["unzip", "-tq", out / "shards/0.zip"], check=True)  # a tool of another make reads it
    entries = list_images(out, read_prompts(experiment.folder / "metadata.jsonl"), IMAGES)
    found = [load_image(entry.path).tobytes() for entry in entries]
    assert found == [load_image(entry.path).tobytes() for entry in list_images(whole)]
    # How they are stored decides nothing that has been made.
    digests = {slice_digest(load_experiment(path), "generate", image_set="s") for path in (config, zipping)}
    assert len(digests) == 1


def test_killed_and_started_again_it_ends_with_the_same_archive(experiment, zipping, whole):  # noqa: F811
    generate_shard(job(experiment, zipping, "unhurt"))
    out, work = experiment.folder / "hurt", experiment.folder / "hurt-work"
    arguments = kill_twice(experiment, zipping, out, work, within_s=0.1)
    done = len(recorded(work))
    assert done >= 8
    (data,) = [*work.glob("done/*.images")] or [None]
    if data is not None:  # a batch that was being written: half an image, in no line of the journal
        assert not list(out.glob("shards/*.zip"))
        with open(data, "ab") as file:
            file.write(png_bytes(whole)["00003/samples/00002.png"][:100])
    stderr = run(arguments)
    if done < 12:
        assert f"12 images, {done} already done" in stderr
    assert (out / "shards/0.zip").read_bytes() == (experiment.folder / "unhurt/shards/0.zip").read_bytes()
    assert contents(out) == png_bytes(whole) and not list(work.glob("done/*.images"))


def test_a_write_that_fails_is_told_and_leaves_nothing_half(experiment, zipping, whole, capsys, monkeypatch):  # noqa: F811
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    told = r"prompt 0000. image .: .*\.images: cannot write \(No space left"
    with monkeypatch.context() as patched, pytest.raises(DataError, match=told):
        patched.setattr("promptecho.image_output.fsync", full)
        generate_shard(job(experiment, zipping, "full"))
    assert not list((experiment.folder / "full").rglob("*"))
    assert "12 images, 0 already done" in generate_again(experiment, zipping, "full", capsys)
    assert contents(experiment.folder / "full") == png_bytes(whole)
    assert not list((experiment.folder / "full-work").glob("done/*.images"))


def test_what_is_finished_is_not_made_again(experiment, zipping, capsys):  # noqa: F811
    assert "12 images, 0 already done" in generate_again(experiment, zipping, "kept", capsys)
    path = experiment.folder / "kept/shards/0.zip"
    expected, changed = path.read_bytes(), path.stat().st_mtime_ns
    assert "already done" not in generate_again(experiment, zipping, "kept", capsys)
    assert path.stat().st_mtime_ns == changed
    # A damaged image costs its batch; an archive that is cut short, all of it. Both come back as they were.
    index = expected.rindex(b"IDAT") + 9
    path.write_bytes(expected[:index] + bytes([expected[index] ^ 255]) + expected[index + 1 :])
    assert "12 images, 8 already done" in generate_again(experiment, zipping, "kept", capsys)
    assert path.read_bytes() == expected
    path.write_bytes(expected[:-30])
    said = generate_again(experiment, zipping, "kept", capsys)
    assert "0.zip: cut short or damaged" in said and "12 images, 0 already done" in said
    assert path.read_bytes() == expected


def test_from_files_to_archives_and_back_nothing_is_made_again(experiment, zipping, config, whole, capsys):  # noqa: F811
    out = experiment.folder / "moved"
    assert "12 images, 0 already done" in generate_again(experiment, config, "moved", capsys)
    assert "already done" not in generate_again(experiment, zipping, "moved", capsys)
    assert contents(out) == png_bytes(whole) and [path.name for path in out.iterdir()] == ["shards"]
    assert "already done" not in generate_again(experiment, config, "moved", capsys)
    assert png_bytes(out) == png_bytes(whole) and not list(out.glob("shards/*.zip"))
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(whole) for path in whole.rglob("*")}


@pytest.mark.parametrize("num_shards", [2, 5])
def test_every_shard_has_its_archive(experiment, zipping, whole, num_shards):  # noqa: F811
    """Those of a larger number of shards go."""
    name, prompts = "many", read_prompts(experiment.folder / "metadata.jsonl")
    for count in (num_shards, 1 if num_shards == 2 else num_shards):
        for shard in range(count):
            work = experiment.folder / f"{name}-{num_shards}" / f"work-{count}" / str(shard)
            generate_shard(
                job(experiment, zipping, f"{name}-{num_shards}", shard=shard, num_shards=count, work=work)
            )  # fmt: skip
        out = experiment.folder / f"{name}-{num_shards}"
        assert len(list(out.glob("shards/*.zip"))) == len(list(out.glob("shards/*.jsonl"))) == count
        entries = list_images(out, prompts, IMAGES)
        expected = [np.asarray(Image.open(path)).astype(int) for path in sorted(whole.glob("*/samples/*.png"))]
        found = [np.asarray(load_image(entry.path)).astype(int) for entry in entries]
        assert len(found) == 12
        assert all(np.abs(a - b).max() <= 1 for a, b in zip(found, expected, strict=True))


def test_a_limit_keeps_what_it_leaves_out(experiment, zipping, capsys):  # noqa: F811
    def limited(limit):
        image_set = {**SET, "prompts": str(experiment.folder / "metadata.jsonl"), "storage": "zip"}
        benchmark = {"image_set": "s", "scorer": "geneval", "backend": "mask2former", "limit": limit}
        return experiment.config(f"zip-limit-{limit or 0}", sections={"image_sets": {"s": image_set},
                                                                 "benchmarks": {"geneval": benchmark}})  # fmt: skip

    out = experiment.folder / "limited"
    assert "6 images, 0 already done" in generate_again(experiment, limited(2), "limited", capsys)
    before = contents(out)
    assert len(before) == 6
    assert "12 images, 6 already done" in generate_again(experiment, limited(None), "limited", capsys)
    after = contents(out)
    assert before.items() <= after.items() and list(after) == sorted(after) and len(after) == 12
    assert "already done" not in generate_again(experiment, limited(2), "limited", capsys)
    assert contents(out) == after and len(read_jsonl(out / "shards/0.jsonl")) == 6
