"""What an image set costs as PNG files and as one ZIP file a shard: files, seconds to write, to list and to read.

    python perf/image_storage.py --images 300 --rounds 3

The images are noise, encoded once beforehand, so that what is timed is storing and reading. Both ways take turns within
a round, in an order that alternates. Writing is what generation does (image_output.py): batches that outlive a kill,
then the shard's end. Reading is what scoring does: the list with all its checks, then the bytes of each image in turn.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptecho.bench.report import spread
from promptecho.benchmarks.captions.layout import CaptionsLayout, list_images
from promptecho.files import write_jsonl
from promptecho.image_output import ArchiveOutput, FileOutput, ImageOutput

BATCH, PROMPTS = 8, "prompts.jsonl"


class Encoded:
    """An image whose PNG is made already."""

    def __init__(self, content: bytes):
        self.content = content

    def save(self, target: Any, format: str) -> None:
        if isinstance(target, Path):
            target.write_bytes(self.content)
        else:
            target.write(self.content)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def written(folder: Path, way: str, count: int, image: Any) -> None:
    layout = CaptionsLayout(folder / PROMPTS, folder / way, 1)
    every, data = [(p, 0) for p in range(count)], folder / f"{way}.images"
    output: ImageOutput = FileOutput(layout, folder / way, 0, data, every)
    if way == "zip":
        output = ArchiveOutput(layout, folder / way, 0, data, every)
    output.prepare()
    for start in range(0, count, BATCH):
        batch = every[start : start + BATCH]
        output.write(batch, [image] * len(batch))
    output.finish(range(count))


def read(folder: Path, way: str) -> None:
    for entry in list_images(folder / way):
        entry.path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--side", type=int, default=768, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the file system to measure")
    given = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 256, (given.side, given.side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    image, times, files = Encoded(buffer.getvalue()), {}, {}
    for turn in range(given.rounds):
        for way in ("files", "zip")[:: 1 if turn % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory(dir=given.folder) as name:
                folder = Path(name)
                write_jsonl(folder / PROMPTS, [{"data_id": str(k), "caption": "x"} for k in range(given.images)])
                times.setdefault((way, "write"), []).append(timed(lambda: written(folder, way, given.images, image)))  # noqa: B023
                os.sync()
                times.setdefault((way, "read"), []).append(timed(lambda: read(folder, way)))  # noqa: B023
                files[way] = sum(path.is_file() for path in (folder / way).rglob("*"))
                shutil.rmtree(folder / way)
    print(f"{given.images} images of {len(image.content) / 1e6:.2f} MB, {given.rounds} rounds; median (range)")
    for (way, what), rows in sorted(times.items()):
        told = [spread(column) for column in zip(*rows, strict=True)]
        print(f"{way:5} {what:5} wall s {told[0]}, CPU s {told[1]}, files {files[way]}")


if __name__ == "__main__":
    main()
