"""Which images to caption: a folder or a list, in a fixed order, and the part of one shard."""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptecho.captions.folders import IMAGE_SUFFIXES, by_reason, walk
from promptecho.errors import DataError
from promptecho.file_hashes import FileHashes
from promptecho.files import write_text
from promptecho.names import id_of, name_of, shown
from promptecho.text_files import LISTS, TABLES, read_rows, suffix_of

LIST_VERSION = 1


@dataclass(frozen=True)
class ImageItem:
    """An image to caption; `image_id` is unique in the data set.

    What was known of the file when it was listed: bytes, time of change in ns, hash. None: not looked at, or not there.
    """

    image_id: str
    path: Path
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ImageList:
    """Images sorted by id; `source` is where they were looked for, `left_out` says what is there beside them.

    `unlisted`: ids that are found in the source and left out because finished captions are older than the rules by
    which they are found.
    """

    source: str
    items: list[ImageItem]
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)


def list_images(source: str | Path) -> list[ImageItem]:
    """The images of `image_list`."""
    return image_list(source).items


def image_list(source: str | Path) -> ImageList:
    """All images of a folder (with sub-folders), a .txt list (a path a line) or a .jsonl or .csv list (image_id and
    path in a row), which may be one that `write_list` wrote.

    Ids: the path within the folder, the line as written, or `image_id`; `names.py` says how names that no text can hold
    are written. Relative paths of a list count from the list's folder. Sorted by id. Whether a file can be read shows
    when it is captioned.

    Raises:
        DataError: the source is missing, empty, of unknown kind, or names ids twice; all are named.
    """
    source = Path(source)
    left_out: dict[str, Counter[str]] = {}
    unlisted: list[str] = []
    header: dict[str, Any] = {}
    try:
        is_folder = source.is_dir()
        if is_folder:
            found = walk(source)
            left_out = found.left_out
            items = [ImageItem(id_of(name), source / name) for name in found.names]
        elif not source.is_file():
            raise DataError(f"{shown(source)}: no such image folder or list")
        elif suffix_of(source) in TABLES:
            rows = [row for _, row in read_rows(source)]
            header = rows.pop(0) if rows and "promptecho_list" in rows[0] else {}
            origin = Path(header["source"]) if Path(header.get("source", "")).is_dir() and header else None
            left_out = {folder: Counter(reasons) for folder, reasons in header.get("left_out", {}).items()}
            unlisted = header.get("unlisted", [])
            items = _listed(source, rows)
            if origin is not None:  # as it lies now, should all have been moved together
                items = [replace(i, path=Path(os.path.abspath(origin / name_of(i.image_id)))) for i in items]
        elif suffix_of(source) in LISTS:
            items = [ImageItem(id_of(line), source.parent / line) for line in _lines(source)]
        else:
            raise DataError(
                f"{shown(source)}: give an image folder, a .txt list of paths, or a .jsonl or .csv list of image_id "
                "and path"
            )
    except OSError as error:
        raise DataError(f"{shown(source)}: cannot read ({error.strerror or error}); allow it") from None
    if not items:
        reasons = sum(left_out.values(), Counter())
        others = f"; left out: {by_reason(reasons)}" if reasons else ""
        raise DataError(f"{shown(source)}: holds no images (looked for {', '.join(IMAGE_SUFFIXES)}){others}")
    items.sort(key=lambda item: item.image_id)
    twice = [name for name, count in Counter(item.image_id for item in items).items() if count > 1]
    if twice:
        names = ", ".join(map(repr, twice))
        raise DataError(f"{shown(source)}: image_id {names[:500]} occurs twice; ids must be unique")
    return ImageList(header.get("source", str(source)), items, left_out, unlisted)


def look_at(items: Iterable[ImageItem]) -> list[ImageItem]:
    """The items with their files' sizes and times of change as they are now; None where there is no such file."""
    return [ImageItem(item.image_id, item.path, *_facts(item.path), item.sha256) for item in items]


def with_hashes(listed: ImageList, hashes: FileHashes) -> ImageList:
    """The list with sizes, times of change and hashes as they are now; None for files that are not there.

    Raises:
        DataError: files cannot be read.
    """
    items = look_at(listed.items)
    found = hashes.of([item.path for item in items if item.size is not None], "images")
    return replace(listed, items=[replace(item, sha256=found.get(item.path)) for item in items])


def write_list(path: str | Path, listed: ImageList) -> None:
    """Write a list that `image_list` reads, atomically: a line that says what it is, then one for each image."""
    header = {
        "promptecho_list": LIST_VERSION, "source": listed.source, "images": len(listed.items),
        "left_out": listed.left_out, "unlisted": listed.unlisted,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "image_id": item.image_id, "path": os.path.abspath(item.path), "size": item.size, "mtime_ns": item.mtime_ns,
            "sha256": item.sha256,
        }
        for item in listed.items
    ]  # fmt: skip
    # As ASCII: a path may hold bytes that are not UTF-8.
    write_text(path, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in [header, *rows]))


def _listed(source: Path, rows: list[dict[str, Any]]) -> list[ImageItem]:
    items, problems = [], []
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("image_id", "path") if not isinstance(row.get(key), str) or not row[key]]
        if missing:
            problems.append(f"image {number} has no {' and no '.join(missing)} (a text)")
            continue
        known = [row.get("size"), row.get("mtime_ns"), row.get("sha256")]
        if any(not isinstance(value, kind | None) for value, kind in zip(known, (int, int, str), strict=True)):
            problems.append(f"image {number} has a size, mtime_ns or sha256 that is none")
        items.append(ImageItem(id_of(row["image_id"]), source.parent / row["path"], *known))
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{shown(source)}: {', '.join(problems[:10])}{more}; each line is {{image_id, path}}")
    return items


def _lines(source: Path) -> list[str]:
    """The lines of a list of paths. Names may be any bytes; with a byte order mark it is text of Windows."""
    data = source.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{shown(source)}: not UTF-16 ({error}); give a text file of image paths") from None
    else:
        text = os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
    if "\n" not in text:  # else a CR may be part of a name
        text = text.replace("\r", "\n")
    return [line for line in (line.strip(" \t\r") for line in text.split("\n")) if line]


def _facts(path: Path) -> tuple[int | None, int | None]:
    try:
        facts = path.stat()
    except OSError:
        return None, None
    return facts.st_size, facts.st_mtime_ns


def shard_of(items: Sequence[ImageItem], shard: int, num_shards: int) -> list[ImageItem]:
    """Every `num_shards`-th item from index `shard` on: shards differ by one item at most.

    Raises:
        DataError: `shard` is not in 0 .. num_shards - 1.
    """
    if not 0 <= shard < num_shards:
        raise DataError(f"shard {shard} of {num_shards}: shards are numbered from 0 to {num_shards - 1}")
    return list(items[shard::num_shards])
