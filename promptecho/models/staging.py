"""Copies of model folders on a node's own disk, so that its processes do not all read the network file system.

`STAGING/promptecho-UID/NAME-IDENTITY/` is one copy. A copy is made under a temporary name and renamed, under a lock
that the node's other processes wait for; it is complete or not there. A process that uses a copy holds a shared lock
on it until it ends, and copies that nobody uses are deleted, least recently used first, when room is needed.

Staging is an optimisation, so whatever prevents it (no room, a folder that others can write to, a disk that fails)
is reported in one line, and the model is loaded from where it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptecho.errors import DataError
from promptecho.files import digest, sha256_file
from promptecho.progress import progress

MARGIN = 1 << 30  # bytes that stay free on the node's disk
SMALL = 1 << 20  # files up to this size count by content, larger ones by size and time of change
CHUNK = 1 << 24
WAIT_S = 0.2
SAY_S = 30.0

Listing = dict[str, tuple[int, int]]  # name -> bytes, mtime in ns

_in_use: dict[str, int] = {}  # copies of this process: path -> descriptor that holds the shared lock


class _NotStagedError(Exception):
    """The model was not staged; the text says why, after the model's path."""


def staged(path: str, staging: str | Path | None, *, free: int | None = None) -> str:
    """The copy of model folder `path` below `staging`, made now if this node has none; else `path` itself.

    Args:
        staging: folder on the node's disk; environment variables of the job in it are filled in. None: no staging.
        free: bytes to count as free there; default: what the file system says.
    """
    if staging is None or not Path(path).is_dir():
        return path
    source = Path(path).resolve()
    try:
        home = private_folder(staging)
        files = listing(source)
        name = f"{source.name}-{identity(source, files)}"
        with _lock(home, source):
            return str(_copy_of(source, home / name, files, free))
    except _NotStagedError as error:
        reason = str(error)
    except (OSError, DataError) as error:
        reason = f"cannot be copied ({error})"
    print(f"staging: {path}: {reason}; loading it from where it is", file=sys.stderr, flush=True)
    return path


def private_folder(staging: str | Path) -> Path:
    """The user's own folder below `staging`, made if necessary: weights that others can replace are not loaded."""
    text = os.path.expandvars(str(staging))
    if "$" in text or not os.path.isabs(text):
        raise _NotStagedError(f"models.staging {staging!s} is no absolute path here (a variable that is not set?)")
    folder = Path(text) / f"promptecho-{os.geteuid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise _NotStagedError(f"{folder} is not a folder of yours alone (chmod 700)")
    return folder


def kept_folder(staging: str | Path, name: str) -> Path:
    """The folder `name` beside the copies of models, made if need be; it stays as long as this process lives.

    Raises:
        DataError: there can be none.
    """
    try:
        home = private_folder(staging)
        with _lock(home, home):
            (home / name).mkdir(exist_ok=True)
            _hold(home / name)
    except (_NotStagedError, OSError) as error:
        raise DataError(str(error)) from None
    return home / name


def unstage(staging: str | Path) -> tuple[list[str], list[str]]:
    """Delete the user's copies below `staging`: names of those deleted, and of those that are in use."""
    try:
        home = private_folder(staging)
    except _NotStagedError as error:
        raise DataError(str(error)) from None
    deleted: list[str] = []
    kept: list[str] = []
    with _lock(home, home):
        for copy in sorted(path for path in home.iterdir() if path.is_dir()):
            (deleted if _delete_unused(copy) else kept).append(copy.name)
    return deleted, kept


def listing(folder: Path) -> Listing:
    """All files of a model's folder but hidden ones.

    Raises:
        _NotStagedError: a link leads out of the folder.
    """
    found: Listing = {}
    for base, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(base) / name
            if path.is_symlink() and not path.resolve().is_relative_to(folder):
                raise _NotStagedError(f"{path} is a link that leads out of the folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(base) / name
            if not name.startswith("."):
                facts = path.stat()
                if not stat.S_ISREG(facts.st_mode):
                    raise _NotStagedError(f"{path} is no plain file")
                found[str(path.relative_to(folder))] = (facts.st_size, facts.st_mtime_ns)
    return found


def identity(folder: Path, files: Listing) -> str:
    """What the copy of a folder is called: changes with its place and with any file."""
    facts = [
        [name, size, sha256_file(folder / name) if size <= SMALL else mtime] for name, (size, mtime) in files.items()
    ]
    return digest([str(folder), facts])


def _copy_of(source: Path, copy: Path, files: Listing, free: int | None) -> Path:
    if not _complete(copy, files):
        if copy.exists() and not _delete_unused(copy):
            raise _NotStagedError(f"its copy {copy} is damaged, and another process uses it")
        home, temporary = copy.parent, copy.with_name(f".{copy.name}.tmp")
        for other in home.glob(".*.tmp"):
            if other != temporary:  # of a process that was killed: the lock is ours
                shutil.rmtree(other, ignore_errors=True)
        _make_room(home, temporary, files, free)
        _copy(source, temporary, files)
        if listing(source) != files:
            shutil.rmtree(temporary)
            raise _NotStagedError("it changed while it was copied")
        os.replace(temporary, copy)
    _hold(copy)
    os.utime(copy)  # last used
    return copy


def _complete(copy: Path, files: Listing) -> bool:
    """Whether the copy has all files with their sizes and times, and no others."""
    try:
        return listing(copy) == files
    except (_NotStagedError, OSError):
        return False


def _copy(source: Path, temporary: Path, files: Listing) -> None:
    """Copy what is missing; a file gets its time of change last, so that a partial file never looks complete."""
    temporary.mkdir(mode=0o700, exist_ok=True)
    done = {name for name in files if _same(temporary / name, files[name])}
    gone = [path for path in temporary.rglob("*") if path.is_file() and str(path.relative_to(temporary)) not in files]
    for path in gone:
        path.unlink()
    megabytes = {name: size / 1e6 for name, (size, _) in files.items()}
    total = max(round(sum(megabytes.values())), 1)
    before = sum(megabytes[name] for name in done)
    with progress(f"staging {source} to {temporary.parent}", total, "MB", done=min(round(before), total)) as bar:
        copied = before
        for name, (_, mtime) in files.items():
            if name in done:
                continue
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(source / name, "rb") as reader, open(target, "wb") as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)
                    copied += len(chunk) / 1e6
                    if (step := min(int(copied), total) - bar.count) > 0:
                        bar.advance(step)
                writer.flush()
                os.fsync(writer.fileno())  # after a crash of the node, what has its final name is whole
            os.utime(target, ns=(mtime, mtime))
            if not _same(target, files[name]):
                raise _NotStagedError(f"{name} changed while it was copied")


def _same(path: Path, facts: tuple[int, int]) -> bool:
    return path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) == facts


def _make_room(home: Path, temporary: Path, files: Listing, free: int | None) -> None:
    """Delete copies that nobody uses, least recently used first, until the files fit."""
    needed = sum(facts[0] for name, facts in files.items() if not _same(temporary / name, facts)) + MARGIN
    available = shutil.disk_usage(home).free if free is None else free
    copies = [path for path in home.iterdir() if path.is_dir() and path != temporary]
    for copy in sorted(copies, key=lambda path: path.stat().st_mtime_ns):
        if available >= needed:
            break
        size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
        if _delete_unused(copy):
            available += size
            print(f"staging: deleted {copy} to make room", file=sys.stderr, flush=True)
    if available < needed:
        raise _NotStagedError(
            f"needs {needed / 1e9:.1f} GB in {home} with a reserve of {MARGIN / 1e9:.1f} GB, and {available / 1e9:.1f} "
            "GB are free"
        )


def _hold(copy: Path) -> None:
    """Keep the copy from being deleted while this process lives."""
    if str(copy) in _in_use:
        return
    descriptor = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _in_use[str(copy)] = descriptor


def _delete_unused(copy: Path) -> bool:
    """Delete a copy unless a process holds it. The caller has the folder's lock, so no process starts to use it
    meanwhile."""
    if str(copy) in _in_use:
        return False
    descriptor = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under another name first: killed in the middle, it is no copy any more.
        leaving = copy.with_name(f".{copy.name.strip('.')}.gone.tmp")
        shutil.rmtree(leaving, ignore_errors=True)
        os.replace(copy, leaving)
        shutil.rmtree(leaving)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _lock(home: Path, source: Path) -> Iterator[None]:
    """One process of the node at a time; the others say that they wait. The kernel frees it when a process dies."""
    descriptor = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        start, said = time.monotonic(), -SAY_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - start
                if waited - said >= SAY_S and waited > 2 * WAIT_S:
                    said = waited
                    print(
                        f"staging: {source}: waiting for another process of this node, {waited:.0f} s so far",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
                time.sleep(WAIT_S)
        yield
    finally:
        os.close(descriptor)
