"""Files that are not what their name says: what they are instead, and what to do (`pointers.py` has those of Git LFS).

A download behind a login and a spreadsheet under another suffix leave files that some readers would take at their word
(a page is lines of text), and that others would call damaged.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from promptecho.errors import DataError
from promptecho.names import shown

START = 64  # bytes that tell


def refuse_pipe(path: str | Path) -> None:
    """Stop before a file is opened that would be waited for without end.

    Raises:
        DataError: a pipe, socket or device.
        OSError: it does not exist, or cannot be read now.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{shown(path)}: a pipe or device, not a plain file; save what comes from it as a file first")


def other_kind(start: bytes, what: str) -> str | None:
    """What a file with these first bytes is in place of `what`, such as "the weights", and the fix; None: not known."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return f"a web page, not {what}; its address wants a login or is that of the page, not of the file"
    if text.startswith((b"<?xml", b"<svg")):
        return f"XML (a drawing, or the message of a server), not {what}; export it, or download the file itself"
    if start.startswith(b"\x1f\x8b"):
        return f"compressed with gzip, so not {what}; unpack it first (gunzip)"
    if start.startswith(b"PK\x03\x04"):
        return f"a zip archive or an office document (.xlsx, ...), not {what}; unpack it, or export what is in it"
    return None


def start_of(path: str | Path) -> bytes:
    """A file's first bytes; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(START)
    except OSError:
        return b""
