"""Pointer files: what Git LFS and git-annex leave in place of a file whose content was not fetched."""

from __future__ import annotations

from pathlib import Path

from promptecho.errors import DataError

LARGEST = 1024  # bytes; a pointer is shorter
LFS = "a pointer of Git LFS, not the file itself; run `git lfs pull` where it came from"
ANNEX = "a pointer of git-annex, not the file itself; run `git annex get` where it came from"
POINTERS = {
    b"version https://git-lfs.github.com/spec/": LFS,
    b"version https://hawser.github.com/spec/": LFS,  # its first versions
    b"/annex/objects/": ANNEX,
}


def pointer_problem(path: str | Path, data: bytes | None = None) -> str | None:
    """What a file is, and what to do, if it is a pointer; None for all others, and for what can't be read.

    Args:
        data: its content (or begin), where that has been read already.
    """
    if data is None:
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST)
        except OSError:
            return None
    if len(data) > LARGEST:
        return None
    return next((told for start, told in POINTERS.items() if data.startswith(start)), None)


def refuse_pointer(path: str | Path, data: bytes | None = None) -> None:
    """Nothing, unless the file is a pointer.

    Raises:
        DataError: it is; says of which tool, and what to do.
    """
    if problem := pointer_problem(path, data):
        raise DataError(f"{path}: {problem}")
