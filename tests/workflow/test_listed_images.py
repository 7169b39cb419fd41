"""Photographs that are replaced or added after they were captioned, with real Snakemake and the embedded VLM."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from promptecho.captions.store import CaptionRow, CaptionSource, read_captions, write_captions
from promptecho.files import write_jsonl
from promptecho.vlm import model_revision

ROOT = Path(__file__).resolve().parent.parent.parent
QUERY = "Describe this image in detail."
CAPTIONS = "results/tiny/captions/captions.h5"


def photograph(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((64, 64, 3), 20 * index, dtype=np.uint8)).save(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_shards_of_other_photographs_are_made_again(workflow):
    root, photos = workflow.root, workflow.root / "photos"
    (root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    workflow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}, num_shards: 3, heldout: 8",
                  "images: photos, num_shards: 2, heldout: 1, max_new_tokens: 4")  # fmt: skip
    names = [f"{k}.png" for k in range(5)]
    for index, name in enumerate([*names, ".thumbnails/0.png"]):
        photograph(photos / name, index)
    # Captions of an earlier version, which knew of no lists.
    vlm = str(root / "promptecho/shapes/weights/vlm")
    identity = {"max_new_tokens": 4, "temperature": 0.0, "seed": 0, "dtype": "float32"}
    source, captions = CaptionSource(vlm, model_revision(vlm, None), QUERY, identity), root / "results/tiny/captions"
    rows = [CaptionRow(name, f"A star {name}.", 3, "stop", sha256(photos / name)) for name in names]
    for k in range(2):
        write_captions(captions / f"shards/0000{k}.h5", source, rows[k::2], shard=(k, 2))
    write_captions(captions / "captions.h5", source, rows[1:], merge={"training": 4})
    write_jsonl(captions / "heldout.jsonl", [{"data_id": names[0], "caption": rows[0].caption}])
    os.utime(photos / "2.png")  # the same picture
    assert workflow.planned(CAPTIONS) == {}

    facts = (photos / "3.png").stat()
    photograph(photos / "3.png", 9)  # in place, as old as the one before but for a nanosecond
    os.utime(photos / "3.png", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert workflow.planned(CAPTIONS) == {"caption_shard": 1, "captions": 1}
    assert not (captions / "images.jsonl").exists()  # a dry run writes no list
    done = workflow.snakemake("results/tiny/captions/shards/00001.h5")
    assert done.returncode == 0, done.stdout
    assert "tiny: images: 5 taken, 1 left out: 1 folder .thumbnails" in done.stdout
    assert len((captions / "images.jsonl").read_text().splitlines()) == 1 + 5
    shards = [read_captions(captions / f"shards/0000{k}.h5").rows for k in range(2)]
    assert shards[0] == rows[::2]
    assert [(row.image_id, row.image_sha256) for row in shards[1]] == [(n, sha256(photos / n)) for n in names[1::2]]
    photograph(photos / "sub/later.png", 7)
    planned = workflow.planned(CAPTIONS)
    assert planned["captions"] == 1 and planned["caption_shard"] >= 1
