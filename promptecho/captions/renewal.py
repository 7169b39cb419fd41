"""The list of the images that an experiment captions: kept, or made again where the images are different now.

The main process looks at the images whenever the workflow is planned, before any shard starts. The list that it
leaves (`results/E/captions/images.jsonl`) is what all shards read, so that an image that arrives between two of them is
in none: the next run of the workflow sees that the list is not true any more, writes another, and captions the shards
again whose images are others. Whether an image has changed is decided by its content: the file is read again only
where its size or its time of change is not that of the list.

Finished captions that are older than lists are adopted: the images that they hold are the list, whatever the rules by
which images are found now would add (`unlisted`) or leave out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptecho.captions.folders import told
from promptecho.captions.inputs import ImageItem, ImageList, image_list, look_at, shard_of, write_list
from promptecho.captions.store import image_hashes
from promptecho.errors import DataError, counted
from promptecho.file_hashes import FileHashes
from promptecho.names import name_of

LIST = "images.jsonl"


@dataclass(frozen=True)
class Renewal:
    """The list that holds now; `shards` must be captioned again because of `changes`, told in words.

    `new`: the list is not yet in its file, or not as it is now.
    """

    listed: ImageList
    shards: list[int]
    changes: list[str]
    new: bool
    captioned: bool = True  # there are captions already

    def write(self, folder: str | Path) -> None:
        """Write the list to `folder` (`results/E/captions`).

        Raises:
            DataError: it cannot be written.
        """
        if self.new:
            write_list(Path(folder) / LIST, self.listed)

    def told(self, name: str) -> list[str]:
        """Lines for the log of the experiment `name`; none where all is as it was."""
        if not self.new:
            return []
        shards = f"shard {', '.join(map(str, self.shards))}" if self.shards else "nothing"
        again = f"; captioned again: {shards}" if self.captioned else ""
        changed = f"images have changed since they were listed: {', '.join(self.changes)}{again}"
        lines = [changed] if self.changes else []
        lines += told([name_of(item.image_id) for item in self.listed.items], self.listed.left_out)
        if self.listed.unlisted:
            count, some = len(self.listed.unlisted), _some(self.listed.unlisted)
            lines.append(
                f"{counted(count, 'more is', 'more are')} there ({some}) that the finished captions, older than lists, "
                f"do not have; to have them, move results/{name}/captions away"
            )
        return [f"{name}: {line}" for line in lines]


def renew(source: str | Path, folder: str | Path, num_shards: int, hashes: FileHashes) -> Renewal:
    """Compare the images of `source` with the list and the shards in `folder` (`results/E/captions`).

    Raises:
        DataError: `image_list`'s reasons, or a file that cannot be read to see whether it is the same.
    """
    folder = Path(folder)
    found = image_list(source)
    old = _recorded(folder, str(source))
    shards = {k: rows for k in range(num_shards) if (rows := _rows(folder / "shards" / f"{k:05d}.h5")) is not None}
    merged = None if len(shards) == num_shards else _rows(folder / "captions.h5")
    if old is None and not shards and merged is None:
        return Renewal(replace(found, items=_absolute(found.items)), [], [], True, False)
    adopted = _adopted(found, shards if len(shards) == num_shards else {}) if old is None else old
    captioned = {image_id for rows in [*shards.values(), merged or []] for image_id, _ in rows}
    now, changes = _now(found, adopted, hashes, captioned)
    stale = [k for k, rows in shards.items() if not _agree(rows, shard_of(now.items, k, num_shards))]
    if merged is not None and not shards and not _contains(now.items, merged):
        stale = list(range(num_shards))  # their files were deleted, but what was made from them exists
    return Renewal(now, stale, changes, now != old, bool(captioned))


def _recorded(folder: Path, source: str) -> ImageList | None:
    """The earlier list; None where there is none, or one of other images."""
    try:
        listed = image_list(folder / LIST)
    except DataError:  # made again, from the images
        return None
    return listed if listed.source == source else None


def _rows(path: Path) -> list[tuple[str, str]] | None:
    """(image id, hash) of a caption file; None where it is missing or damaged, and will be made anyway."""
    try:
        return image_hashes(path)
    except DataError:
        return None


def _adopted(found: ImageList, shards: dict[int, list[tuple[str, str]]]) -> ImageList:
    """The list by which older captions were made; what is found now where they are not whole."""
    ids = sorted(image_id for rows in shards.values() for image_id, _ in rows)
    places = {item.image_id: item.path for item in found.items}
    root = Path(found.source) if Path(found.source).is_dir() else Path(found.source).parent
    items = [ImageItem(name, places.get(name, root / name_of(name))) for name in ids]
    if not items or not all(item.path.is_file() for item in items):
        return ImageList(found.source, [ImageItem(item.image_id, item.path) for item in found.items], found.left_out)
    return ImageList(found.source, items, found.left_out, sorted(places.keys() - set(ids)))


def _now(found: ImageList, old: ImageList, hashes: FileHashes, captioned: set[str]) -> tuple[ImageList, list[str]]:
    """The list as the images are now, and how it differs from `old`. Of a file that may be another one the content is
    read if there is a caption that was made of the file before."""
    before = {item.image_id: item for item in old.items}
    skipped = set(old.unlisted)
    here = {item.image_id: item for item in found.items if item.image_id not in skipped}
    if Path(found.source).is_dir():  # found by older rules only, and still there; what a list no longer names is out
        here |= {item.image_id: item for item in old.items if item.image_id not in here and item.path.is_file()}
    items = _absolute(here[name] for name in sorted(here))
    same = {item.image_id for item in items if _known(item, before.get(item.image_id))}
    unsure = [i.path for i in items if i.image_id in captioned - same and i.size is not None]
    contents = hashes.of(unsure, "images")
    items = [
        replace(item, sha256=before[item.image_id].sha256 if item.image_id in same else contents.get(item.path))
        for item in items
    ]
    touched: list[str] = []
    replaced: list[str] = []
    for item in items:
        was = before.get(item.image_id)
        if was is not None and was.size is not None and item.image_id not in same and item.sha256 != was.sha256:
            (touched if was.sha256 is None or item.sha256 is None else replaced).append(item.image_id)
    groups = {
        "added": [name for name in here if name not in before], "gone": [name for name in before if name not in here],
        "replaced": replaced, "of another time or size": touched,
    }  # fmt: skip
    words = [f"{len(names)} {word} ({_some(sorted(names))})" for word, names in groups.items() if names]
    return ImageList(found.source, items, found.left_out, sorted(skipped & {i.image_id for i in found.items})), words


def _absolute(items: Iterable[ImageItem]) -> list[ImageItem]:
    """As they are in a written list: with size and time, wherever the reader starts."""
    return [replace(item, path=Path(os.path.abspath(item.path))) for item in look_at(items)]


def _known(item: ImageItem, was: ImageItem | None) -> bool:
    """Whether a file has the size and time of change of the list, so that it need not be read."""
    return was is not None and was.size is not None and (was.size, was.mtime_ns) == (item.size, item.mtime_ns)


def _agree(rows: Sequence[tuple[str, str]], items: Sequence[ImageItem]) -> bool:
    """Whether a shard holds these images. A file without hash is as it was when it was listed and captioned."""
    if [image_id for image_id, _ in rows] != [item.image_id for item in items]:
        return False
    return all(
        not sha256 or item.sha256 in (None, sha256) for (_, sha256), item in zip(rows, items, strict=True)
    )  # fmt: skip


def _contains(items: Sequence[ImageItem], rows: Sequence[tuple[str, str]]) -> bool:
    known = {item.image_id: item.sha256 for item in items}
    return all(image_id in known and known[image_id] in (None, sha256) for image_id, sha256 in rows)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
