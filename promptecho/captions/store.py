"""The HDF5 file of captions, shard or merged: written once, read with validation.

Root attributes: schema_version, vlm, vlm_revision, query, generation (JSON), promptecho_version; a shard has shard and
num_shards, a merged file has merge (JSON). Columns of equal length: image_id, caption (UTF-8), n_tokens (int32),
finish_reason (stop | length | rejected:REASON), image_sha256; a column of texts is a group of two datasets, `utf8` and
`offsets` (captions/packed.py). Each column has its checksum as the attribute sha256.

In schema 1, which is still read, columns of texts are datasets of strings, and content_sha256 at the root covers all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import promptecho
from promptecho.captions import hdf5
from promptecho.captions.hdf5 import OFFSETS, REMEDY, SUM, UTF8
from promptecho.captions.hdf5 import DamagedCaptions as DamagedCaptions
from promptecho.captions.packed import Packed, Stored, TextColumn, checksum, column, pack, sound
from promptecho.errors import DataError, unreadable

if TYPE_CHECKING:
    import h5py
    import numpy as np

SCHEMA_VERSION = 2
READ = (1, 2)
ATTRIBUTES = ("schema_version", "vlm", "vlm_revision", "query", "generation")
COLUMNS = ("image_id", "caption", "n_tokens", "finish_reason", "image_sha256")
TEXT_COLUMNS = tuple(name for name in COLUMNS if name != "n_tokens")
AT_ONCE = 4096  # captions that are read together where all are gone through


def rejection(finish_reason: str) -> str | None:
    """The reason of rejection that a finish reason tells, or None."""
    return finish_reason.removeprefix("rejected:") if finish_reason.startswith("rejected:") else None


class CaptionRow(NamedTuple):
    """One image's caption. `n_tokens`: tokens that the captioner wrote (-1: unknown, the text was given)."""

    image_id: str
    caption: str
    n_tokens: int
    finish_reason: str
    image_sha256: str

    @property
    def rejected(self) -> str | None:
        """The reason of rejection, or None."""
        return rejection(self.finish_reason)


@dataclass(frozen=True)
class CaptionSource:
    """What made the captions; equal in all shards of one data set."""

    vlm: str
    vlm_revision: str
    query: str
    generation: dict[str, Any]


@dataclass(frozen=True)
class CaptionHead:
    """What a caption file says of itself."""

    source: CaptionSource
    merge: dict[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None  # (index from 0, number of shards)
    schema: int = SCHEMA_VERSION
    content_sha256: str | None = None  # of schema 1


@dataclass(frozen=True)
class CaptionFile:
    """A caption file in memory."""

    source: CaptionSource
    rows: list[CaptionRow]
    merge: dict[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None


class Caption(NamedTuple):
    """A training prompt; `prompt_id` is the id of the image that it captions."""

    prompt_id: str
    text: str


def write_captions(
    path: str | Path,
    source: CaptionSource,
    rows: Sequence[CaptionRow],
    *,
    merge: dict[str, Any] | None = None,
    shard: tuple[int, int] | None = None,
) -> None:
    """Write a caption file atomically; the same content gives the same bytes.

    Raises:
        DataError: the disk is full or not writable.
    """
    import numpy as np

    values = dict(zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * len(COLUMNS), strict=True))
    texts = {name: column(values[name]) for name in TEXT_COLUMNS}
    write_columns(path, source, np.array(values["n_tokens"], np.int32), texts, merge=merge, shard=shard)


def write_columns(
    path: str | Path,
    source: CaptionSource,
    n_tokens: np.ndarray,
    texts: dict[str, TextColumn],
    *,
    merge: dict[str, Any] | None = None,
    shard: tuple[int, int] | None = None,
) -> None:
    """`write_captions` for columns that need not be in memory.

    Raises:
        DataError: the disk is full or not writable.
    """
    attributes: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "vlm": source.vlm, "vlm_revision": source.vlm_revision,
        "query": source.query, "generation": json.dumps(source.generation, sort_keys=True),
        "promptecho_version": promptecho.__version__,
    }  # fmt: skip
    if merge is not None:
        attributes["merge"] = json.dumps(merge, sort_keys=True)
    if shard is not None:
        attributes["shard"], attributes["num_shards"] = shard
    hdf5.write_columns(path, attributes, {name: texts.get(name, n_tokens) for name in COLUMNS})


def read_captions(path: str | Path) -> CaptionFile:
    """Read and check a caption file, shard or merged.

    Raises:
        DamagedCaptions: its content is damaged.
        DataError: the file is missing, may not be read, or is not a caption file of these schemas; says which.
    """
    head, n_tokens, texts = read_columns(path)
    values = [n_tokens.tolist() if name == "n_tokens" else texts[name].texts() for name in COLUMNS]
    return CaptionFile(head.source, list(map(CaptionRow._make, zip(*values, strict=True))), head.merge, head.shard)


def read_columns(path: str | Path) -> tuple[CaptionHead, np.ndarray, dict[str, Packed]]:
    """What a caption file says of itself, `n_tokens`, and the columns of texts; checked as by `read_captions`."""
    with hdf5.opened(path) as (file, _):
        head = _head(path, file)
        texts = {name: _texts(path, file, name, head.schema) for name in TEXT_COLUMNS}
        counts = file["n_tokens"]
        n_tokens = counts[...]
        if head.schema > 1:
            _check(path, counts, [n_tokens])
        n_tokens = n_tokens.astype("int32", copy=False)
    if len({len(n_tokens), *map(len, texts.values())}) != 1:
        raise DamagedCaptions(f"{path}: columns of unequal length; {REMEDY}")
    if head.schema == 1 and head.content_sha256 not in (None, _content_sha256(n_tokens, texts)):
        raise DamagedCaptions(f"{path}: its content does not match its checksum; {REMEDY}")
    try:
        for one in texts.values():
            one.check()
    except ValueError as error:
        raise DamagedCaptions(f"{path}: damaged ({error}); {REMEDY}") from None
    return head, n_tokens, texts


def merge_facts(path: str | Path) -> dict[str, Any]:
    """What a caption file says of the merge that made it; {} for a shard.

    Raises:
        DataError: the file is missing, may not be read, or is not a caption file.
    """
    with hdf5.opened(path) as (file, _):
        return _head(path, file).merge


def image_hashes(path: str | Path) -> list[tuple[str, str]]:
    """(image id, hash of the image's file) of each row of a caption file; quicker than `read_captions`, as the captions
    themselves are neither read nor checked.

    Raises:
        DamagedCaptions: these columns cannot be read.
        DataError: the file is missing, or may not be read.
    """
    with hdf5.opened(path) as (file, _):
        schema = _schema(path, file)
        names, hashes = (_texts(path, file, name, schema).texts() for name in ("image_id", "image_sha256"))
        return list(zip(names, hashes, strict=True))


def load_training_captions(path: str | Path, *, check: bool = True) -> Sequence[Caption]:
    """The training prompts of a merged caption file, in file order. They stay in the file, which is held open, and are
    read when they are asked for; those of schema 1 are read at once.

    Args:
        check: compare captions with their checksum and look for empty ones, for which all are read once. Of several
            processes that read the same file, one is enough.

    Raises:
        DataError: the file is damaged, empty, or still holds rejected or empty captions (an unmerged shard). Asking for
            a caption raises it, too, where it cannot be read any more.
    """
    with hdf5.opened(path) as (file, stream):
        head = _head(path, file)
        if head.schema == 1:
            return _usable(path, read_captions(path).rows)
        reasons = _texts(path, file, "finish_reason", head.schema)
        found: dict[str, Stored | Packed] = {}
        for name in ("image_id", "caption"):
            group = file[name]
            offsets, data = _parts(path, group)
            place = data.id.get_offset()
            if place is None and offsets[-1]:  # rewritten by another program, compressed for example
                found[name] = _texts(path, file, name, head.schema)
                continue
            found[name] = Stored(offsets, os.fdopen(os.dup(stream.fileno()), "rb"), place or 0)
            if check:
                _check(path, group, chain([offsets], hdf5.pieces(data)))
        if len({len(file["n_tokens"]), len(reasons), *(len(one.offsets) - 1 for one in found.values())}) != 1:
            raise DamagedCaptions(f"{path}: columns of unequal length; {REMEDY}")
    captions = StoredCaptions(Path(path), found["image_id"], found["caption"])
    if not len(captions):
        raise _none(path)
    if b"rejected:" in bytes(memoryview(reasons.data)):
        for index, reason in enumerate(reasons.texts()):
            if reason.startswith("rejected:"):
                raise _unusable(path, captions[index].prompt_id)
    if check:
        for caption in captions:
            if not caption.text.strip():
                raise _unusable(path, caption.prompt_id)
    return captions


class StoredCaptions(Sequence[Caption]):
    """Training prompts that stay in their file until they are asked for.

    Raises:
        DataError: at any access, where the file is out of reach or damaged by then.
    """

    def __init__(self, path: Path, names: Stored | Packed, texts: Stored | Packed):
        self.path, self.names, self.texts_ = path, names, texts

    def __len__(self) -> int:
        return len(self.texts_.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Caption: ...
    @overload
    def __getitem__(self, index: slice) -> list[Caption]: ...
    def __getitem__(self, index: int | slice) -> Caption | list[Caption]:
        if isinstance(index, slice):
            start, end, step = index.indices(len(self))
            return self._read(start, end) if step == 1 else [self[one] for one in range(start, end, step)]
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"caption {index} of {len(self)}")
        return self._read(number, number + 1)[0]

    def __iter__(self) -> Iterator[Caption]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._read(start, min(start + AT_ONCE, len(self)))

    def _read(self, start: int, end: int) -> list[Caption]:
        if start >= end:
            return []
        try:
            columns = self.names.texts(start, end), self.texts_.texts(start, end)
        except OSError as error:
            raise unreadable(self.path, error) from None
        except ValueError as error:
            raise DamagedCaptions(f"{self.path}: damaged since it was opened ({error}); {REMEDY}") from None
        return list(map(Caption._make, zip(*columns, strict=True)))


def row_to_dict(row: CaptionRow) -> dict[str, Any]:
    """A row as the journal stores it."""
    return row._asdict()


def _schema(path: str | Path, file: h5py.File) -> int:
    """The schema of a file that says one; 1 for others.

    Raises:
        DataError: one that this version does not read.
    """
    schema = int(file.attrs.get("schema_version", 1))
    if schema not in READ:
        raise DataError(
            f"{path}: caption schema {schema}, this version reads {' and '.join(map(str, READ))}; "
            f"use the promptecho that wrote it, or caption again"
        )
    return schema


def _head(path: str | Path, file: h5py.File) -> CaptionHead:
    found = {name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()}
    missing = [name for name in COLUMNS if name not in file] + [name for name in ATTRIBUTES if name not in found]
    if missing:
        raise DataError(
            f"{path}: not a caption file ({', '.join(missing)} missing); give one made by `promptecho caption`"
        )
    schema = _schema(path, file)
    source = CaptionSource(
        str(found["vlm"]), str(found["vlm_revision"]), str(found["query"]), json.loads(found["generation"])
    )
    shard = (int(found["shard"]), int(found["num_shards"])) if "shard" in found else None
    return CaptionHead(source, json.loads(found.get("merge", "{}")), shard, schema, found.get("content_sha256"))


def _texts(path: str | Path, file: h5py.File, name: str, schema: int) -> Packed:
    """A column of texts in memory, and checked where the file has a checksum of it alone."""
    if schema == 1:
        return pack(file[name].asstr()[...].tolist())
    group = file[name]
    offsets, stored = _parts(path, group)
    data = stored[...]
    _check(path, group, [offsets, data])
    return Packed(offsets, data)


def _parts(path: str | Path, group: h5py.Group) -> tuple[np.ndarray, h5py.Dataset]:
    """The offsets of a column of texts, and its bytes, which stay in the file."""
    offsets, data = group[OFFSETS][...], group[UTF8]
    if not sound(offsets, len(data)):
        raise DamagedCaptions(f"{path}: the offsets of {group.name.lstrip('/')} do not fit its texts; {REMEDY}")
    return offsets, data


def _check(path: str | Path, part: h5py.Group | h5py.Dataset, data: Any) -> None:
    """Compare with the checksum of a column, where it has one."""
    told = part.attrs.get(SUM)
    if told is not None and told != checksum(iter(data)):
        raise DamagedCaptions(f"{path}: its content does not match its checksum; {REMEDY}")


def _content_sha256(n_tokens: np.ndarray, texts: dict[str, Packed]) -> str:
    """The checksum of schema 1."""
    hasher = hashlib.sha256()
    for row in zip(
        *(n_tokens.tolist() if name == "n_tokens" else texts[name].texts() for name in COLUMNS), strict=True
    ):
        hasher.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return hasher.hexdigest()


def _usable(path: str | Path, rows: Sequence[CaptionRow]) -> list[Caption]:
    if not rows:
        raise _none(path)
    for row in rows:
        if row.rejected is not None or not row.caption.strip():
            raise _unusable(path, row.image_id)
    return [Caption(row.image_id, row.caption) for row in rows]


def _none(path: str | Path) -> DataError:
    return DataError(f"{path}: holds no captions; caption more images or hold out fewer")


def _unusable(path: str | Path, name: str) -> DataError:
    return DataError(f"{path}: {name} has no usable caption; give the output of `caption merge`")
