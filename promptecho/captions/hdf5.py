"""Caption files as HDF5: written with plain writes, opened without locks, faults told for what they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptecho.captions.packed import CHUNK, TextColumn
from promptecho.errors import DataError, unreadable
from promptecho.files import atomic_path
from promptecho.foreign import START, other_kind, refuse_pipe
from promptecho.pointers import LARGEST, refuse_pointer

if TYPE_CHECKING:
    import h5py
    import numpy as np

OFFSETS, UTF8, SUM = "offsets", "utf8", "sha256"
REMEDY = "if no other program is writing it, move it away and rerun the command that makes it"


class DamagedCaptions(DataError):
    """A caption file whose content is damaged, and not only unreadable at the moment."""


def write_columns(path: str | Path, attributes: dict[str, Any], columns: dict[str, TextColumn | np.ndarray]) -> None:
    """Write a file atomically, with each column's checksum; the same content gives the same bytes.

    HDF5 lays the file out, and the columns' bytes are put there by plain writes: memory stays flat however long the
    columns are, and a full disk fails such a write, never HDF5 in the middle of closing a file.

    Raises:
        DataError: the disk is full or not writable.
    """
    sums = dict.fromkeys(columns, "0" * 64)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        places = _lay_out(attributes, columns, sums)[1]
        for name, column in columns.items():
            hasher = hashlib.sha256()
            for part, value in _parts(name, column).items():
                written = 0
                for data in value:
                    view = memoryview(data).cast("B") if len(data) else b""
                    file.seek(places[part][0] + written)
                    file.write(view)
                    hasher.update(view)
                    written += len(view)
                assert written == places[part][1], f"{part}: {written} bytes, not {places[part][1]}"
            sums[name] = hasher.hexdigest()
        outline, _ = _lay_out(attributes, columns, sums)
        for place, data in outline.writes:
            file.seek(place)
            file.write(data)
        file.truncate(outline.size)


def _parts(name: str, column: TextColumn | np.ndarray) -> dict[str, Iterator[Any]]:
    if isinstance(column, TextColumn):
        return {f"{name}/{OFFSETS}": iter([column.offsets]), f"{name}/{UTF8}": column.parts()}
    return {name: iter([column])}


def _lay_out(
    attributes: dict[str, Any], columns: dict[str, TextColumn | np.ndarray], sums: dict[str, str]
) -> tuple[_Outline, dict[str, tuple[int, int]]]:
    """All of the file but the columns' bytes, and where those belong: dataset -> (place, bytes)."""
    import h5py
    import numpy as np

    outline, places = _Outline(), {}
    plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plain.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plain.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plain.set_obj_track_times(False)

    def dataset(parent: Any, name: str, count: int, dtype: str) -> Any:
        kind = np.dtype(dtype)
        made = h5py.h5d.create(
            parent.id, name.encode(), h5py.h5t.py_create(kind), h5py.h5s.create_simple((count,)), plain
        )
        places[h5py.Dataset(made).name.lstrip("/")] = (made.get_offset() or 0, count * kind.itemsize)
        return h5py.Dataset(made)

    with h5py.File(outline, "w", libver=("earliest", "v110")) as file:
        file.attrs.update(attributes)
        for name, column in columns.items():
            if isinstance(column, TextColumn):
                group = file.create_group(name)
                dataset(group, OFFSETS, len(column.offsets), "<i8")
                dataset(group, UTF8, int(column.offsets[-1]), "u1")
                group.attrs[SUM] = sums[name]
            else:
                dataset(file, name, len(column), column.dtype.newbyteorder("<").str).attrs[SUM] = sums[name]
    return outline, places


class _Outline(io.RawIOBase):
    """A file that keeps what is written to it, and where; what was not written reads as zeros."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self.size = self.position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + (self.size if whence == io.SEEK_END else 0)
        return self.position

    def tell(self) -> int:
        return self.position

    def write(self, data: Any) -> int:
        self.writes.append((self.position, bytes(data)))
        self.position += len(data)
        self.size = max(self.size, self.position)
        return len(data)

    def readinto(self, buffer: Any) -> int:
        start, end = self.position, min(self.position + len(buffer), self.size)
        found = bytearray(max(end - start, 0))
        for place, data in self.writes:
            low, high = max(place, start), min(place + len(data), end)
            if low < high:
                found[low - start : high - start] = data[low - place : high - place]
        buffer[: len(found)] = found
        return len(found)

    def truncate(self, size: int | None = None) -> int:
        self.size = self.position if size is None else size
        return self.size

    def close(self) -> None:
        """Stays readable."""


class _Watched(io.FileIO):
    """A file that remembers why it could not be read: HDF5 calls that damage."""

    failed: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            self.failed = error
            raise


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[h5py.File, io.FileIO]]:
    """A caption file as HDF5 and as the file below it. Faults that the body finds in it are reported as the file's.

    HDF5 does not open it by itself: that locks where the environment says so, and calls a locked file, one that may not
    be read and one that is damaged by the same name. Our files are never written in place.

    Raises:
        DamagedCaptions: its content is damaged.
        DataError: it is missing, may not be read, or is something else.
    """
    import h5py

    try:
        refuse_pipe(path)
        stream = _Watched(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such caption file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    with stream:
        start = stream.read(LARGEST + 1) or b""
        refuse_pointer(path, start)
        try:
            with h5py.File(stream, "r") as file:
                yield file, stream
        except DataError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            if stream.failed is not None:
                raise unreadable(path, stream.failed) from None
            reason = " ".join(str(error).split())[:200]
            if "already open for write" in reason:  # a mark in the file's head
                raise DataError(
                    f"{path}: is open for writing in another program; wait until that has closed it"
                ) from None
            if other := other_kind(start[:START], "captions"):
                raise DataError(f"{path}: {other}") from None
            raise DamagedCaptions(f"{path}: damaged or not HDF5 ({reason}); {REMEDY}") from error


def pieces(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """The content of a dataset of one dimension, a part at a time."""
    step = CHUNK // dataset.dtype.itemsize
    return (dataset[start : start + step] for start in range(0, len(dataset), step))
