"""Images of a folder in a few files: `shards/K.zip` holds those of shard K, under the names that the files would have.

The archives are ZIP files without compression, which PNG images would not gain from: one image is read without the
others, and every tool opens them.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from promptecho.errors import DataError
from promptecho.files import atomic_path
from promptecho.pointers import refuse_pointer

SHARDS = "shards"  # folder of the listings K.jsonl and of the archives K.zip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content makes the same bytes, whenever it is written
_MODE = 0o100644


class DamagedArchiveError(DataError):
    """A ZIP file that is cut short or damaged as a whole."""


class Archive:
    """One ZIP file, open for reading; several threads may read from it.

    Raises:
        DamagedArchiveError: it is cut short or damaged.
        DataError: it is missing or cannot be read now, or a member's name leads out of the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except OSError as error:
            raise DataError(f"{path}: cannot read ({error.strerror or error})") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            refuse_pointer(path)
            raise DamagedArchiveError(
                f"{path}: cut short or damaged ({error}); delete it and {path.with_suffix('.jsonl').name} beside it, "
                "and generate the images again"
            ) from None
        self.names = [info.filename for info in self._file.infolist() if not info.is_dir()]
        for name in self.names:
            _check_name(name, path)

    def read(self, name: str) -> bytes:
        """The bytes of a member, which have the checksum that was written with them.

        Raises:
            DataError: there is no such member, or it is damaged.
        """
        try:
            return self._file.read(name)
        except KeyError:
            raise DataError(f"{self.path}: holds no {name}; generate the images again") from None
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(
                f"{self.path}: {name} is damaged ({error}); delete the archive and "
                f"{self.path.with_suffix('.jsonl').name} beside it, and generate the images again"
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """A stream of a member's bytes, of which the checksum is not looked at before the end."""
        return self._file.open(name)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class ArchivedImage:
    """An image in an archive, for what takes image files."""

    archive: Archive
    member: str

    @property
    def name(self) -> str:
        """The name of the file that it would be, without folders."""
        return PurePosixPath(self.member).name

    def read_bytes(self) -> bytes:
        """Raises:
        DataError: it is damaged.
        """
        return self.archive.read(self.member)

    def open(self, mode: Literal["rb"] = "rb") -> IO[bytes]:
        """As `Path.open`, for readers of a file's head."""
        return self.archive.open(self.member)

    def __str__(self) -> str:
        return f"{self.archive.path}:{self.member}"


ImageFile = Path | ArchivedImage


class ImageStore:
    """The images of an image folder as they are now, in archives or as files; names are relative to the folder.

    Raises:
        DataError: an archive is damaged (as `Archive`), when it is first needed.
    """

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def archives(self) -> list[Archive]:
        """The folder's archives, by shard."""
        found = []
        for path in sorted(archive_paths(self.root), key=lambda path: int(path.stem)):
            try:
                found.append(Archive(path))
            except DataError:
                if path.exists():  # else a shard that starts again has just removed it
                    raise
        return found

    @cached_property
    def _members(self) -> dict[str, list[Archive]]:
        members: dict[str, list[Archive]] = {}
        for archive in self.archives:
            for name in archive.names:
                members.setdefault(name, []).append(archive)
        return members

    def exists(self, name: str) -> bool:
        return name in self._members or (self.root / name).is_file()

    def find(self, name: str) -> ImageFile:
        """Where an image is; a path even where there is no such file.

        Raises:
            DataError: two archives have an image of that name.
        """
        holders = self._members.get(name)
        if not holders:
            return self.root / name
        if len(holders) > 1 and name.endswith(".png"):
            raise DataError(
                f"{name} is in {holders[0].path} and in {holders[1].path}, which are of two numbers of shards; "
                "generate the images again (all shards)"
            )
        return ArchivedImage(holders[0], name)

    def names(self) -> set[str]:
        """Names of all PNG images, without those in hidden folders."""
        loose = {path.relative_to(self.root) for path in self.root.rglob("*.png")}
        found = {path.as_posix() for path in loose if not any(part.startswith(".") for part in path.parts)}
        return found | {name for name in self._members if name.endswith(".png")}


def archive_paths(root: Path) -> list[Path]:
    """The archives of an image folder, in no order."""
    return [path for path in root.glob(f"{SHARDS}/[0-9]*.zip") if path.stem.isdecimal()]


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write an archive; it has its name when it is complete. The same members in the same order make the same bytes.

    Raises:
        DataError: the disk is full or not writable.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        for name, content in members:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, _MODE << 16  # as on Unix, wherever it is written
            file.writestr(info, content)


def _check_name(name: str, path: Path) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise DataError(f"{path}: member {name!r} leads out of the folder; this archive is not from here, delete it")
