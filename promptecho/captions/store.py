"""The HDF5 file of captions, shard or merged: written once, read with validation.

Root attributes: schema_version, vlm, vlm_revision, query, generation (JSON), promptecho_version, content_sha256; a
shard has shard and num_shards, a merged file has merge (JSON). Datasets of equal length: image_id, caption (UTF-8),
n_tokens (int32), finish_reason (stop | length | rejected:REASON), image_sha256.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import promptecho
from promptecho.errors import DataError, unreadable
from promptecho.files import atomic_path
from promptecho.foreign import START, other_kind, refuse_pipe
from promptecho.pointers import refuse_pointer

SCHEMA_VERSION = 1
TEXT_COLUMNS = ("image_id", "caption", "finish_reason", "image_sha256")
ATTRIBUTES = ("schema_version", "vlm", "vlm_revision", "query", "generation")
COLUMNS = ("image_id", "caption", "n_tokens", "finish_reason", "image_sha256")


class DamagedCaptions(DataError):
    """A caption file whose content is damaged, and not merely out of reach."""


@dataclass(frozen=True)
class CaptionRow:
    """One image's caption. `n_tokens`: tokens that the captioner wrote (-1: unknown, the text was given)."""

    image_id: str
    caption: str
    n_tokens: int
    finish_reason: str
    image_sha256: str

    @property
    def rejected(self) -> str | None:
        """The reason of rejection, or None."""
        return self.finish_reason.removeprefix("rejected:") if self.finish_reason.startswith("rejected:") else None


@dataclass(frozen=True)
class CaptionSource:
    """What made the captions; equal in all shards of one data set."""

    vlm: str
    vlm_revision: str
    query: str
    generation: dict[str, Any]


@dataclass(frozen=True)
class CaptionFile:
    """A caption file in memory."""

    source: CaptionSource
    rows: list[CaptionRow]
    merge: dict[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None  # (index from 0, number of shards)


@dataclass(frozen=True)
class Caption:
    """A training prompt."""

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
    import h5py
    import numpy as np

    # Built in memory: a full disk then fails a plain write, and never HDF5 in the middle of closing a file.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["vlm"] = source.vlm
        file.attrs["vlm_revision"] = source.vlm_revision
        file.attrs["query"] = source.query
        file.attrs["generation"] = json.dumps(source.generation, sort_keys=True)
        file.attrs["promptecho_version"] = promptecho.__version__
        file.attrs["content_sha256"] = _content_sha256(rows)
        if merge is not None:
            file.attrs["merge"] = json.dumps(merge, sort_keys=True)
        if shard is not None:
            file.attrs["shard"], file.attrs["num_shards"] = shard
        for name in COLUMNS:
            values = [getattr(row, name) for row in rows]
            if name == "n_tokens":
                file.create_dataset(name, data=np.array(values, dtype=np.int32), track_times=False)
            else:
                file.create_dataset(
                    name, data=np.array(values, dtype=object), dtype=h5py.string_dtype("utf-8"), track_times=False
                )
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_captions(path: str | Path) -> CaptionFile:
    """Read and check a caption file, shard or merged.

    Raises:
        DamagedCaptions: its content is damaged.
        DataError: the file is missing, may not be read, or is not a caption file of this schema; says which.
    """
    import h5py

    path = Path(path)
    remedy = "if no other program is writing it, move it away and rerun the command that makes it"
    try:
        # Read whole and not by HDF5, which locks where the environment says so, and calls a locked file, one that may
        # not be read and one that is damaged by the same name. Our files are never written in place.
        refuse_pipe(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such caption file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    refuse_pointer(path, data)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            attributes = {
                name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()
            }
            missing = [name for name in COLUMNS if name not in file]
            missing += [name for name in ATTRIBUTES if name not in attributes]
            if missing:
                raise DataError(
                    f"{path}: not a caption file ({', '.join(missing)} missing); give one made by `promptecho caption`"
                )
            if int(attributes["schema_version"]) != SCHEMA_VERSION:
                raise DataError(
                    f"{path}: caption schema {attributes['schema_version']}, this version reads {SCHEMA_VERSION}; "
                    f"use the promptecho that wrote it, or caption again"
                )
            columns = {name: file[name].asstr()[...].tolist() for name in TEXT_COLUMNS}
            columns["n_tokens"] = [int(value) for value in file["n_tokens"][...]]
            source = CaptionSource(
                str(attributes["vlm"]),
                str(attributes["vlm_revision"]),
                str(attributes["query"]),
                json.loads(attributes["generation"]),
            )
            merge = json.loads(attributes.get("merge", "{}"))
            shard = (int(attributes["shard"]), int(attributes["num_shards"])) if "shard" in attributes else None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        if "already open for write" in reason:  # a mark in the file's head
            raise DataError(f"{path}: is open for writing in another program; wait until that has closed it") from None
        if other := other_kind(data[:START], "captions"):
            raise DataError(f"{path}: {other}") from None
        raise DamagedCaptions(f"{path}: damaged or not HDF5 ({reason}); {remedy}") from error
    if len({len(values) for values in columns.values()}) != 1:
        raise DamagedCaptions(f"{path}: columns of unequal length; {remedy}")
    rows = [CaptionRow(*values) for values in zip(*(columns[name] for name in COLUMNS), strict=True)]
    if "content_sha256" in attributes and attributes["content_sha256"] != _content_sha256(rows):
        raise DamagedCaptions(f"{path}: its content does not match its checksum; {remedy}")
    return CaptionFile(source, rows, merge, shard)


def image_hashes(path: str | Path) -> list[tuple[str, str]]:
    """(image id, hash of the image's file) of each row of a caption file; quicker than `read_captions`, and unchecked.

    Raises:
        DamagedCaptions: these columns cannot be read.
        DataError: the file is missing, or may not be read.
    """
    import h5py

    try:
        refuse_pipe(path)
        data = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    refuse_pointer(path, data)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            columns = [file[name].asstr()[...].tolist() for name in ("image_id", "image_sha256")]
        return list(zip(*columns, strict=True))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DamagedCaptions(f"{path}: damaged or not HDF5 ({' '.join(str(error).split())[:200]})") from error


def load_training_captions(path: str | Path) -> list[Caption]:
    """The training prompts of a merged caption file, in file order.

    Raises:
        DataError: the file is damaged, empty, or still holds rejected or empty captions (an unmerged shard).
    """
    rows = read_captions(path).rows
    if not rows:
        raise DataError(f"{path}: holds no captions; caption more images or hold out fewer")
    for row in rows:
        if row.rejected is not None or not row.caption.strip():
            raise DataError(f"{path}: {row.image_id} has no usable caption; give the output of `caption merge`")
    return [Caption(row.image_id, row.caption) for row in rows]


def row_to_dict(row: CaptionRow) -> dict[str, Any]:
    """A row as the journal stores it."""
    return asdict(row)


def _content_sha256(rows: Sequence[CaptionRow]) -> str:
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(astuple(row), ensure_ascii=True).encode() + b"\n")
    return hasher.hexdigest()
