"""Captions from a server that a job starts, through real Snakemake."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from PIL import Image

from promptecho.captions.store import read_captions

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_job_starts_its_server_and_keeps_its_log(workflow):
    root, script = workflow.root, ROOT / "tests/unit/caption_server.py"
    (root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    (root / "photos").mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (80 * index, 10, 10)).save(root / f"photos/{index}.png")
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} --models {{model}} --port {{port}}"
    server = json.dumps({"command": command})
    workflow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}, num_shards: 3, heldout: 8",
                  f"images: photos, num_shards: 1, heldout: 1, server: {server}")  # fmt: skip
    shard = "results/tiny/captions/shards/00000.h5"
    done = workflow.snakemake(shard)
    assert done.returncode == 0, done.stdout
    file = read_captions(root / shard)
    assert [row.caption.startswith("A picture that begins with ") for row in file.rows] == [True] * 3
    assert file.source.generation["answered_by"] == "vlm"
    assert "loading" in (root / "results/tiny/logs/caption_shard/00000.server.log").read_text()
    workflow.edit("config/experiments/tiny.yaml", "--port", "--delay 0 --port")  # how it is started decides no caption
    assert workflow.planned(shard) == {}
