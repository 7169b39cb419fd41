"""An append-only journal of finished rows: JSON Lines, synced after each append, safe against SIGKILL.

The first line says what the work is. A line without its newline was being written when the process died: it is
dropped. Any other damage is an error, because rows that were synced must be there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from promptecho.errors import DataError


class Journal:
    """Open (or create) the journal of the work that `header` describes; `rows` holds what is finished.

    Raises:
        DataError: another process has it open, it belongs to other work, or a line is damaged; names file and line.
    """

    def __init__(self, path: str | Path, header: dict[str, Any]):
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise DataError(f"{self.path}: cannot open the journal ({error.strerror})") from error
        try:
            self._lock()
            self._load(header)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write `rows` and sync them to disk before returning.

        Raises:
            DataError: the disk is full or not writable; what was written before stays.
        """
        self._write(rows)
        self.rows += rows

    def remove(self) -> None:
        """Delete the journal: its work is done and stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{self.path}: another process is working on it; wait for it or stop it") from None
        except OSError:
            pass  # some network file systems have no locks

    def _load(self, header: dict[str, Any]) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        lines = [self._parse(line, number) for number, line in enumerate(data[:whole].splitlines(), start=1)]
        if not lines:
            self._write([header])
            with contextlib.suppress(OSError):  # not every file system syncs folders
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            return
        differing = sorted(key for key in header | lines[0] if header.get(key) != lines[0].get(key))
        if differing:
            raise DataError(
                f"{self.path}: belongs to other work (it differs in {', '.join(differing)}); delete it to start over"
            )
        self.rows = lines[1:]

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            row = error
        if not isinstance(row, dict):
            raise DataError(
                f"{self.path}:{number}: damaged line; delete the journal to start over, or the lines from "
                f"{number} on to keep what is before"
            )
        return row

    def _write(self, rows: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows).encode()
        whole = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # else the next start drops the half line, unless more was written
                os.ftruncate(self._file, whole)
            raise DataError(
                f"{self.path}: cannot write ({error.strerror}); free space or fix permissions, then rerun to continue"
            ) from error
