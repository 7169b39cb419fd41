"""Images of a folder in a few files: `shards/K.zip` holds those of shard K, under the names that the files would have.

The archives are ZIP files without compression, which PNG images would not gain from: one image is read without the
others, and every tool opens them.
"""

from __future__ import annotations

import errno
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

from promptecho.errors import DataError, unreadable
from promptecho.files import atomic_path
from promptecho.pointers import refuse_pointer

SHARDS = "shards"  # folder of the listings K.jsonl and of the archives K.zip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content makes the same bytes, whenever it is written
_MODE = 0o100644
_HEADER, _LENGTHS = 30, slice(26, 30)  # bytes in front of a member's name; in them, how long name and extra field are


class DamagedArchiveError(DataError):
    """A ZIP file that is cut short or damaged, as a whole or in one member."""


class Archive:
    """One ZIP file for reading, also by several threads. It is open only while it is read: a figure may need more
    archives than a process may have open files.

    Raises:
        DamagedArchiveError: it is cut short or damaged.
        DataError: it is missing or cannot be read now, or a member's name leads out of the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                self._state = _state(file)
                members = [info for info in archive.infolist() if not info.is_dir()]
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            # zipfile says of a file whose end it could not read that it is no ZIP file. EINVAL is no read error: a
            # damaged record points to in front of the file's begin.
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError) and cause.errno != errno.EINVAL:
                raise unreadable(path, cause) from None
            refuse_pointer(path)
            raise DamagedArchiveError(
                f"{path}: cut short or damaged ({error}); delete it and {path.with_suffix('.jsonl').name} beside it, "
                "and generate the images again"
            ) from None
        self.names = [info.filename for info in members]
        self._members = {info.filename: info for info in members}
        for name in self.names:
            _check_name(name, path)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """The bytes of a member, which have the checksum that was written with them.

        Raises:
            DamagedArchiveError: the member is damaged.
            DataError: there is no such member, or the file cannot be read now.
        """
        try:
            with self.open(name) as file:
                return file.read()
        except OSError as error:  # says nothing about its content
            raise DataError(f"{unreadable(self.path, error)}, then rerun") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DamagedArchiveError(
                f"{self.path}: {name} is damaged ({error}); delete the archive and "
                f"{self.path.with_suffix('.jsonl').name} beside it, and generate the images again"
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """A stream of a member's bytes, of which the checksum is not looked at before the end.

        Raises:
            DataError: there is no such member, or another archive has taken this one's place.
            OSError, zipfile.BadZipFile: as `read` tells.
        """
        if name not in self:
            raise DataError(f"{self.path}: holds no {name}; generate the images again")
        info, file = self._members[name], open(self.path, "rb")  # noqa: SIM115
        try:
            if _state(file) != self._state:
                raise DataError(f"{self.path}: another archive has taken its place while it was read; rerun")
            file.seek(info.header_offset)
            header = file.read(_HEADER)
            if len(header) < _HEADER or not header.startswith(b"PK\3\4"):
                raise zipfile.BadZipFile("no header where the member begins")
            lengths = header[_LENGTHS]
            file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
            return cast(IO[bytes], zipfile.ZipExtFile(file, "r", info, None, True))
        except BaseException:
            file.close()
            raise


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

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether all these images are there. Not where an archive is damaged: its own shard and readers tell that, a
        shard that asks whether it is the last one goes on."""
        try:
            return all(self.exists(name) for name in names)
        except DamagedArchiveError:
            return False

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


def _state(file: IO[bytes]) -> tuple[int, int, int]:
    """Facts by which another file of the same name is noticed."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_name(name: str, path: Path) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise DataError(f"{path}: member {name!r} leads out of the folder; this archive is not from here, delete it")
