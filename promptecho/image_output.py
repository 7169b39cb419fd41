"""Where generation puts a shard's images: files in the layout's places, or one archive (`image_sets.NAME.storage`).

An archive is written when the shard is complete. Until then its images are in one append-only file beside the journal,
which tells where each of them lies: what was cut off by a kill is in no line of the journal, and is overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import fsync
from pathlib import Path
from typing import Any, Protocol

import PIL.Image

from promptecho.archives import SHARDS, Archive, DamagedArchiveError, write_archive
from promptecho.benchmarks.layout import DescribesPrompts, Layout
from promptecho.errors import DataError, unreadable
from promptecho.files import atomic_path, sha256_file

Image = tuple[int, int]  # prompt, number among its images
Saving = Callable[[Image], contextlib.AbstractContextManager[Any]]
Row = dict[str, Any]  # of the journal: the image's sha256 and, of an archive's, place and size


class ImageOutput(Protocol):
    """The images of one shard; only the process that holds the shard's journal may use it."""

    def prepare(self) -> None:
        """Take over what was stored in the other way.

        Raises:
            DataError: the disk is full or not writable, or an archive cannot be read now.
        """
        ...

    def holds(self, one: Image, rows: Sequence[Row]) -> bool:
        """Whether an image is there as one of the journal's `rows` about it has it.

        Raises:
            DataError: what is there cannot be read now.
        """
        ...

    def write(
        self, batch: Sequence[Image], images: Sequence[PIL.Image.Image], saving: Saving = contextlib.nullcontext
    ) -> list[Row]:
        """Write a batch so that it outlives a kill; returns what the journal needs to know of each image.

        Args:
            saving: gives the context in which an image is encoded.

        Raises:
            DataError: the disk is full or not writable; names the prompt.
        """
        ...

    def finish(self, prompts: Sequence[int]) -> Callable[[Image], str]:
        """Complete the shard, of which the images of `prompts` are wanted; returns what tells an image's SHA-256.

        Raises:
            DataError: the disk is full or not writable, or an image cannot be read any more.
        """
        ...


class FileOutput:
    """A PNG file each.

    Args:
        data: the file that an `ArchiveOutput` has left which was not completed, if there is one.
        every: the shard's images, whether wanted or not.
    """

    def __init__(self, layout: Layout, root: Path, shard: int, data: Path, every: Sequence[Image]):
        self._layout, self._root, self._data, self._every = layout, root, data, every
        self._archive = archive_path(root, shard)

    def prepare(self) -> None:
        archive = _whole(self._archive)
        if archive is None:
            return
        # This shard's images alone: where the number of shards has changed, another one may be writing the others.
        for one in self._every:
            path = self._layout.image_path(*one)
            name = path.relative_to(self._root).as_posix()
            if name not in archive or path.exists():
                continue
            try:
                content = archive.read(name)
            except DamagedArchiveError as error:
                print(f"{str(error).partition(';')[0]}; it is made again", file=sys.stderr, flush=True)
                continue
            beside = self._layout.prompt_files(one[0]) if isinstance(self._layout, DescribesPrompts) else {}
            for file, told in {**beside, name: content}.items():
                with _named(self._layout, one), atomic_path(self._root / file) as temporary:
                    temporary.write_bytes(told)
        self._archive.unlink()

    def holds(self, one: Image, rows: Sequence[Row]) -> bool:
        path = self._layout.image_path(*one)
        if path.is_file() and sha256_file(path) in {row["sha256"] for row in rows}:
            return True
        for row in reversed(rows):
            if "offset" in row and (content := _content(self._data, row)) is not None:
                with _named(self._layout, one), atomic_path(path) as temporary:
                    temporary.write_bytes(content)
                return True
        return False

    def write(
        self, batch: Sequence[Image], images: Sequence[PIL.Image.Image], saving: Saving = contextlib.nullcontext
    ) -> list[Row]:
        for one, image in zip(batch, images, strict=True):
            with _named(self._layout, one), saving(one), atomic_path(self._layout.image_path(*one)) as temporary:
                image.save(temporary, format="PNG")
        return [{"sha256": sha256_file(self._layout.image_path(*one))} for one in batch]

    def finish(self, prompts: Sequence[int]) -> Callable[[Image], str]:
        self._data.unlink(missing_ok=True)
        self._layout.describe(prompts)
        return lambda one: sha256_file(self._layout.image_path(*one))


class ArchiveOutput:
    """One archive, whose images are in the order of `every`: the same bytes whatever batches they were made in.

    Args:
        data: the file that holds the images until the archive is written.
        every: the shard's images, in order, whether wanted or not.
    """

    def __init__(self, layout: Layout, root: Path, shard: int, data: Path, every: Sequence[Image]):
        self._layout, self._root, self._path = layout, root, archive_path(root, shard)
        self._every, self._data = every, data
        self._found: dict[Image, tuple[str, Callable[[], bytes]]] = {}  # SHA-256, and how to read it
        self._in_former: set[Image] = set()  # those of them that are in the archive which is there
        self._end = 0  # of what is sound in `data`
        self._former: Archive | None = None

    def prepare(self) -> None:
        self._former = _whole(self._path)

    def name(self, one: Image) -> str:
        return self._layout.image_path(*one).relative_to(self._root).as_posix()

    def holds(self, one: Image, rows: Sequence[Row]) -> bool:
        for row in reversed(rows):  # the last one about an image is the one that holds
            if "offset" in row and _content(self._data, row) is not None:
                self._found[one] = (row["sha256"], partial(_stored, self._data, row))
                self._end = max(self._end, row["offset"] + row["size"])
                return True
        places: list[Callable[[], bytes]] = [self._layout.image_path(*one).read_bytes]
        if self._former is not None and self.name(one) in self._former:
            places.insert(0, partial(self._former.read, self.name(one)))
        hashes = {row["sha256"] for row in rows}
        for read in places:
            # Not there, or damaged; any other error is no reason to make it again.
            with contextlib.suppress(FileNotFoundError, DamagedArchiveError), _readable(self._layout.image_path(*one)):
                if (sha256 := hashlib.sha256(read()).hexdigest()) in hashes:
                    self._found[one] = (sha256, read)
                    if isinstance(read, partial):
                        self._in_former.add(one)
                    return True
        return False

    def write(
        self, batch: Sequence[Image], images: Sequence[PIL.Image.Image], saving: Saving = contextlib.nullcontext
    ) -> list[Row]:
        rows: list[Row] = []
        place = self._end
        self._data.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(self._data, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                file.truncate(self._end)  # a batch that was cut off
                file.seek(self._end)
                for one, image in zip(batch, images, strict=True):
                    with saving(one):
                        buffer = io.BytesIO()
                        image.save(buffer, format="PNG")
                        content = buffer.getvalue()
                    file.write(content)
                    rows.append({"sha256": hashlib.sha256(content).hexdigest(), "offset": place, "size": len(content)})
                    place += len(content)
                file.flush()
                fsync(file.fileno())
        except OSError as error:
            p, i = batch[len(rows)] if len(rows) < len(batch) else batch[-1]
            raise DataError(
                f"prompt {self._layout.ids[p]} image {i}: {self._data}: cannot write ({error.strerror or error}); free "
                "space or fix permissions, then rerun"
            ) from error
        for one, row in zip(batch, rows, strict=True):
            self._found[one] = (row["sha256"], partial(_stored, self._data, row))
            self._in_former.discard(one)
        self._end = place
        return rows

    def finish(self, prompts: Sequence[int]) -> Callable[[Image], str]:
        kept = [one for one in self._every if one in self._found]
        if not self._is_archived(kept):
            write_archive(self._path, self._members(kept))
        self._data.unlink(missing_ok=True)
        if self._remove_files(kept):
            self._layout.remove_stale()  # what was made of the files
        self._layout.describe([])
        return lambda one: self._found[one][0]

    def _is_archived(self, kept: Sequence[Image]) -> bool:
        """Whether the archive that is there has these images, and nothing else."""
        former, named = self._former, list(self._names(kept))
        if former is None or not self._in_former.issuperset(kept) or former.names != [name for name, _ in named]:
            return False
        try:
            return all(former.read(name) == what for name, what in named if isinstance(what, bytes))
        except DamagedArchiveError:
            return False

    def _names(self, kept: Sequence[Image]) -> Iterator[tuple[str, Image | bytes]]:
        """Names of the members, with what they are: an image, or a file beside those of a prompt."""
        last = None
        for one in kept:
            if one[0] != last and isinstance(self._layout, DescribesPrompts):
                yield from self._layout.prompt_files(one[0]).items()
            last = one[0]
            yield self.name(one), one

    def _members(self, kept: Sequence[Image]) -> Iterator[tuple[str, bytes]]:
        for name, what in self._names(kept):
            if isinstance(what, bytes):
                yield name, what
                continue
            sha256, read = self._found[what]
            try:
                content = read()
            except OSError as error:
                raise unreadable(error.filename or self._data, error) from error
            if hashlib.sha256(content).hexdigest() != sha256:
                raise DataError(f"{name}: is not what was generated; rerun, and it is made again")
            yield name, content

    def _remove_files(self, kept: Sequence[Image]) -> int:
        """Delete what the archive holds and lies beside it as files, and the folders that this leaves empty; returns
        how many images there were."""
        found = 0
        folders: set[Path] = set()
        for name, what in self._names(kept):
            with contextlib.suppress(FileNotFoundError):
                (self._root / name).unlink()
                found += not isinstance(what, bytes)
            folders.update(Path(name).parents)
        for folder in sorted(folders - {Path()}, reverse=True):  # inner ones first
            with contextlib.suppress(OSError):  # not there, or another shard's images are in it
                (self._root / folder).rmdir()
        return found


def _stored(data: Path, row: Row) -> bytes:
    """What is in `data` where `row` says that an image lies."""
    with open(data, "rb") as file:
        file.seek(row["offset"])
        return file.read(row["size"])


def _content(data: Path, row: Row) -> bytes | None:
    """The bytes of an image in `data`; None if they are not there, or others."""
    try:
        with _readable(data):
            content = _stored(data, row)
    except FileNotFoundError:
        return None
    return content if hashlib.sha256(content).hexdigest() == row["sha256"] else None


def archive_path(root: Path, shard: int) -> Path:
    """Where the archive of a shard lies."""
    return root / SHARDS / f"{shard}.zip"


def _whole(path: Path) -> Archive | None:
    """The archive at `path`; a damaged one is deleted, since its images have to be made again."""
    if not path.is_file():
        return None
    try:
        return Archive(path)
    except DamagedArchiveError as error:
        print(f"{str(error).partition(';')[0]}; its images are made again", file=sys.stderr, flush=True)
        path.unlink()
        return None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Have an error of reading name the file, unless the file is missing."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def _named(layout: Layout, one: Image) -> Iterator[None]:
    """Have an error name the prompt."""
    try:
        yield
    except DataError as error:
        raise DataError(f"prompt {layout.ids[one[0]]} image {one[1]}: {error}") from error
