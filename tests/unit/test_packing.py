"""Packed images: the same bytes, nothing lost at a kill, scored like loose ones."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_geneval_files import arguments, images  # noqa: F401  (a fixture)
from typer.testing import CliRunner

from promptecho.benchmarks.packing import PACKED, discard, pack, restore, unpacked
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.files import sha256_file, write_jsonl


def listed(root):
    """The listing that generation writes, of what is there now."""
    found = sorted(root.rglob("*.png"))
    rows = [{"filename": str(path.relative_to(root)), "sha256": sha256_file(path)} for path in found]
    write_jsonl(root / "shards/0.jsonl", rows)
    return {row["filename"]: row["sha256"] for row in rows}


def test_packed_images_are_those_that_were_generated(images):  # noqa: F811
    before = listed(images)
    assert pack(images) == len(before) == 6
    assert not list(images.rglob("*.png"))
    with unpacked(images) as copy:
        assert {name: sha256_file(copy / name) for name in before} == before
        assert copy.parts[-3:] == images.parts[-3:] and not (copy / PACKED).exists()
    assert not copy.exists()
    first = (images / PACKED).read_bytes()
    assert pack(images) == 6 and (images / PACKED).read_bytes() == first


def test_scores_of_packed_images_are_those_of_loose_ones(images, tmp_path):  # noqa: F811
    listed(images)
    loose, packed = tmp_path / "loose/10.json", tmp_path / "packed/10.json"
    assert CliRunner().invoke(app, arguments(images, loose)).exit_code == 0
    assert CliRunner().invoke(app, ["benchmarks", "pack", str(images)]).exit_code == 0
    assert CliRunner().invoke(app, arguments(images, packed)).exit_code == 0
    assert json.loads(loose.read_text()) == json.loads(packed.read_text())


def test_an_image_that_was_changed_is_not_packed(images):  # noqa: F811
    listed(images)
    changed = sorted(images.rglob("*.png"))[3]
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(DataError, match=f"{changed.name}: is not the image that was generated"):
        pack(images)
    assert len(list(images.rglob("*.png"))) == 6 and not (images / PACKED).exists()


def test_what_a_kill_left_between_packing_and_deleting_is_cleared(images):  # noqa: F811
    listed(images)
    kept = {path: path.read_bytes() for path in images.rglob("*.png")}
    pack(images)
    for path in list(kept)[2:4]:
        path.write_bytes(kept[path])
    assert pack(images) == 6 and not list(images.rglob("*.png"))


def test_restored_images_never_replace_newer_ones(images):  # noqa: F811
    before = listed(images)
    pack(images)
    name = sorted(before)[0]
    (images / name).write_bytes(b"made anew")
    restore(images)
    assert not (images / PACKED).exists() and not list(images.glob(".restoring-*"))
    assert (images / name).read_bytes() == b"made anew"
    assert all(sha256_file(images / other) == before[other] for other in before if other != name)


def test_shards_that_restore_at_once_do_not_disturb_each_other(images):  # noqa: F811
    before = listed(images)
    for _ in range(30):
        pack(images)
        start = threading.Barrier(6)

        def one(start=start) -> None:
            start.wait()
            restore(images)

        with ThreadPoolExecutor(6) as pool:
            for future in [pool.submit(one) for _ in range(6)]:
                future.result()
        assert {name: sha256_file(images / name) for name in before} == before and not (images / PACKED).exists()


@pytest.mark.parametrize("state", ["loose", "packed", "both"])
def test_deleted_images_are_no_longer_said_to_be_there(images, tmp_path, state):  # noqa: F811
    listed(images)
    some = {path: path.read_bytes() for path in sorted(images.rglob("*.png"))[:2]}
    if state != "loose":
        pack(images)
    if state == "both":
        for path, content in some.items():
            path.write_bytes(content)
    others = {path for path in images.rglob("*.json*") if path.parent.name != "shards"}
    said = tmp_path / "packed.json"
    run = CliRunner().invoke(app, ["benchmarks", "pack", str(images), "--delete", "--out", str(said)])
    assert run.exit_code == 0 and json.loads(said.read_text()) == {"images": 0, "deleted": 6}
    left = {path for path in images.rglob("*") if path.is_file()}
    assert left == others and others  # prompts, but neither images nor listings
    assert discard(images) == 0
    score = CliRunner().invoke(app, arguments(images, tmp_path / "x/10.json"))
    assert score.exit_code != 0 and not (tmp_path / "x").exists()


def test_a_foreign_archive_cannot_leave_the_folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    with tarfile.open(root / PACKED, "w") as archive:
        entry = tarfile.TarInfo("../../escaped.png")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(bytes(np.zeros(4, np.uint8))))
    with pytest.raises(DataError, match="cannot unpack"), unpacked(root):
        pass
    assert not list(tmp_path.rglob("escaped.png"))
