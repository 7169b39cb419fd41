"""Which images to caption: a folder or a list, in a fixed order, and the part of one shard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import DataError
from promptecho.files import read_jsonl

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageItem:
    """An image to caption; `image_id` is unique in the data set."""

    image_id: str
    path: Path


def list_images(source: str | Path) -> list[ImageItem]:
    """All images of a folder (with sub-folders), a .txt list (a path a line) or a .jsonl list ({image_id, path}).

    Ids: the path within the folder, the line as written, or `image_id`. Relative paths of a list count from the
    list's folder. Sorted by id. Whether a file can be read shows when it is captioned.

    Raises:
        DataError: the source is missing, empty, of unknown kind, or names an id twice.
    """
    source = Path(source)
    if source.is_dir():
        items = [
            ImageItem((Path(folder) / name).relative_to(source).as_posix(), Path(folder) / name)
            for folder, _, names in os.walk(source, followlinks=True)
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    elif not source.is_file():
        raise DataError(f"{source}: no such image folder or list")
    elif source.suffix == ".jsonl":
        items = [_listed(source, number, row) for number, row in enumerate(read_jsonl(source), start=1)]
    elif source.suffix in (".txt", ".lst"):
        try:
            lines = [line.strip() for line in source.read_text(encoding="utf-8").split("\n")]
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: not UTF-8 ({error}); give a text file of image paths") from None
        items = [ImageItem(line, source.parent / line) for line in lines if line]
    else:
        raise DataError(f"{source}: give an image folder, a .txt list of paths, or a .jsonl list of image_id and path")
    if not items:
        raise DataError(f"{source}: holds no images (looked for {', '.join(IMAGE_SUFFIXES)})")
    items.sort(key=lambda item: item.image_id)
    for item in items:
        if not item.image_id.isprintable():  # also catches file names that are not UTF-8
            raise DataError(f"{source}: image_id {ascii(item.image_id)} has unprintable characters; rename the image")
    for before, after in zip(items, items[1:], strict=False):
        if before.image_id == after.image_id:
            raise DataError(f"{source}: image_id {after.image_id!r} occurs twice; ids must be unique")
    return items


def _listed(source: Path, number: int, row: dict) -> ImageItem:
    for key in ("image_id", "path"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise DataError(f"{source}: image {number} has no {key} (a text); each line is {{image_id, path}}")
    return ImageItem(row["image_id"], source.parent / row["path"])


def shard_of(items: Sequence[ImageItem], shard: int, num_shards: int) -> list[ImageItem]:
    """Every `num_shards`-th item from index `shard` on: shards differ by one item at most.

    Raises:
        DataError: `shard` is not in 0 .. num_shards - 1.
    """
    if not 0 <= shard < num_shards:
        raise DataError(f"shard {shard} of {num_shards}: shards are numbered from 0 to {num_shards - 1}")
    return list(items[shard::num_shards])
