"""Hashes of files, remembered: a file is read again only when it may have changed.

    with FileHashes("results/E/work/file_hashes.json") as hashes:
        found = hashes.of(paths, "photographs")  # {path: SHA-256}, with progress

A file counts as unchanged while its size, times of change (mtime and ctime, in ns) and inode are. ctime sees what mtime
does not: `cp -p` and `rsync -t` over a file give it the time of the new one, which may be older or the same.

The store is one JSON file that is replaced whole. Processes that save at the same time may lose each other's newest
entries, never more: those files are read once again. So it may be deleted at any time, and one that is damaged, or
cannot be written, costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from promptecho.errors import DataError
from promptecho.files import digest, sha256_file, write_text
from promptecho.progress import progress

SCHEMA_VERSION = 1
# A file that was changed within so many seconds before it was read could be changed again without a new time of change:
# clocks of file systems tick as slowly as every two seconds. Its hash is used and not remembered.
UNSETTLED_S = 3.0
MIB = 1 << 20
WHOLE = 64 * MIB  # larger weights are not read whole to find out whether they were replaced
THREADS = 8  # reading waits for the disk or the network; hashing lets other threads run
SAY_FROM = 1000  # files that must be read; fewer are done before anybody wonders


class FileHashes:
    """SHA-256 of files, remembered in `store`; None remembers them in this object alone."""

    def __init__(self, store: str | Path | None = None):
        self.store = None if store is None else Path(store)
        self.read = 0  # files that had to be read; the others were remembered
        self._known: dict[str, list[Any]] = {} if self.store is None else _load(self.store)
        self._new: dict[str, list[Any]] = {}
        self._counting = threading.Lock()

    def __enter__(self) -> FileHashes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.save()  # after an error, too: what was read does not have to be read again

    def sha256(self, path: str | Path) -> str:
        """Hex SHA-256 of a file's bytes; of what a link leads to.

        Raises:
            DataError: the file cannot be read.
        """
        key = os.path.abspath(path)
        facts = _facts(path)
        if (known := self._known.get(key)) and known[:-1] == facts:
            return known[-1]
        value = sha256_file(path)
        with self._counting:
            self.read += 1
        if _facts(path) == facts and _settled(facts):
            self._known[key] = self._new[key] = [*facts, value]
        return value

    def sampled(self, path: str | Path) -> str:
        """`sha256` of a file up to 64 MiB; of a larger one the digest of its size and of a MiB at its begin, middle and
        end, which other weights of the same shapes do not share.

        Raises:
            DataError: the file cannot be read.
        """
        facts = _facts(path)
        if facts[0] <= WHOLE:
            return self.sha256(path)
        key = f"sampled:{os.path.abspath(path)}"
        if (known := self._known.get(key)) and known[:-1] == facts:
            return known[-1]
        try:
            with open(path, "rb") as file:
                parts = [_read_at(file, place) for place in (0, facts[0] // 2, facts[0] - MIB)]
        except OSError as error:
            raise DataError(f"{path}: cannot read ({error.strerror or error})") from None
        value = digest([facts[0], *(hashlib.sha256(part).hexdigest() for part in parts)])
        if _facts(path) == facts and _settled(facts):
            self._known[key] = self._new[key] = [*facts, value]
        return value

    def of(self, paths: Iterable[str | Path], what: str = "files") -> dict[Path, str]:
        """SHA-256 of many files, in the order given, read side by side; says how far it is where it takes long.

        Raises:
            DataError: files cannot be read; one line each, at most ten.
        """
        files = [Path(path) for path in paths]
        found: dict[Path, str | None] = dict.fromkeys(files)
        missing, problems = [], []
        for file in found:
            known = self._known.get(os.path.abspath(file))
            try:
                if known and known[:-1] == _facts(file):
                    found[file] = known[-1]
                else:
                    missing.append(file)
            except DataError as error:
                problems.append(str(error))
        for file, value in self._read_all(missing, what):
            if isinstance(value, DataError):
                problems.append(str(value))
            else:
                found[file] = value
        if problems:
            more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
            raise DataError("\n".join([*problems[:10], *more]))
        return {file: value for file, value in found.items() if value is not None}

    def _read_all(self, files: list[Path], what: str) -> Iterable[tuple[Path, str | DataError]]:
        def one(file: Path) -> str | DataError:
            try:
                return self.sha256(file)
            except DataError as error:
                return error

        with ThreadPoolExecutor(THREADS) as pool:
            results = zip(files, pool.map(one, files), strict=True)
            if len(files) < SAY_FROM:
                yield from results
                return
            with progress(f"hashes of {what}", len(files), "files") as bar:
                for result in results:
                    bar.advance()
                    yield result

    def save(self) -> bool:
        """Remember what was read, also beside what others remembered in the meantime; False where that can't be."""
        if self.store is None or not self._new:
            return True
        entries = _load(self.store) | self._new
        try:
            write_text(self.store, json.dumps({"schema_version": SCHEMA_VERSION, "files": entries}))
        except DataError:  # no room or no right to write here: they are read again next time
            return False
        self._new = {}
        return True


def _read_at(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(MIB)


def files_below(folder: str | Path) -> list[Path]:
    """All files below a folder but hidden ones and those in hidden folders.

    Raises:
        DataError: the folder, or one in it, cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot read ({error.strerror or error})")

    found = []
    for base, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(base) / name for name in sorted(names) if not name.startswith(".")]
    return found


def _facts(path: str | Path) -> list[int]:
    """What tells that a file is still the same one: bytes, times of change in ns, inode."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror or error})") from None
    if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for ever
        raise DataError(f"{path}: cannot read (a folder, pipe or device, not a plain file)")
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _settled(facts: list[int]) -> bool:
    return abs(time.time() - max(facts[1], facts[2]) / 1e9) > UNSETTLED_S


def _load(store: Path) -> dict[str, list[Any]]:
    """What is remembered; nothing where the file is missing, damaged, or of another version."""
    try:
        value = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        return {}
    files = value.get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 5}
