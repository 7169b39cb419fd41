"""Files that are either complete or absent: write to a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptecho.errors import DataError, unreadable
from promptecho.foreign import refuse_pipe
from promptecho.pointers import refuse_pointer
from promptecho.text_files import json_rows, read_text

WHOLE_HASH_LIMIT = 1 << 30  # bytes


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable (a no-op on file systems that refuse to sync folders)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot write ({error.strerror or error}); free space or fix permissions, then rerun")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`.

    The body may create a file or a folder. On any error the temporary is removed and `path` stays as it was.

    Raises:
        DataError: the disk is full or not writable.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_error(path, error) from error
    try:
        yield temporary
        if temporary.is_dir():
            for child in sorted(temporary.rglob("*")):
                if child.is_file():
                    _fsync_file(child)
            _replace_folder(temporary, path)
        else:
            _fsync_file(temporary)
            os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        if error.filename and not str(error.filename).startswith(str(temporary)) and Path(error.filename) != path:
            raise
        raise _disk_error(path, error) from error
    except Exception as error:
        # safetensors reports a full disk as its own error type, which is not imported here to stay light.
        if type(error).__name__ == "SafetensorError":
            raise DataError(f"{path}: cannot write ({error}); free space or fix permissions, then rerun") from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # gone already, or the disk's fault, which the first error tells
                temporary.unlink()


def copy_file(source: Path, target: Path, told: Path) -> None:
    """Copy a file's content, making the folder around it. An OSError of `shutil.copyfile` names the source even where
    the disk is full.

    Args:
        told: what an error names in place of `target`, which may have a temporary name.

    Raises:
        DataError: the source cannot be opened, or the content cannot be copied.
    """
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise unreadable(source, error) from error
    with file:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        except OSError as error:
            raise DataError(
                f"{told}: cannot copy {source} to it ({error.strerror or error}); free space or fix permissions, then "
                "rerun"
            ) from error


def _fsync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _replace_folder(temporary: Path, path: Path) -> None:
    """Rename a folder into place; an old folder of that name steps aside first and is deleted after."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    if old.exists():
        shutil.rmtree(old)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, indented, keys in insertion order, NaN and infinity refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        refuse_pointer(path)
        raise DataError(f"{path}: not valid JSON ({error}); delete it and rerun the rule that makes it") from None


def write_jsonl(path: str | Path, rows: list[dict]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, jsonl_text(rows))


def write_csv_or_jsonl(path: str | Path, rows: list[dict]) -> None:
    """Write rows, atomically: as CSV, whose columns are the first row's keys, where `path` ends in .csv, and as JSON
    Lines otherwise."""
    if Path(path).suffix.lower() != ".csv":
        write_jsonl(path, rows)
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def jsonl_text(rows: list[dict]) -> str:
    """JSON Lines: UTF-8 characters as they are, NaN and infinity refused."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_jsonl(path: str | Path) -> list[dict]:
    """Read a JSON Lines file whole.

    Raises:
        DataError: the file is missing or unreadable, or lines are not JSON objects; names all of them.
    """
    path = Path(path)
    return [row for _, row in json_rows(path, read_text(path))]


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        DataError: the file cannot be read, or is a pipe or device, which has no end.
    """
    try:
        refuse_pipe(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror or error})") from None


def fingerprint(file: Path) -> str:
    """Hash of a file; for large ones of its size, first and last MiB."""
    size = file.stat().st_size
    if size <= WHOLE_HASH_LIMIT:
        return sha256_file(file)
    with open(file, "rb") as stream:
        head = stream.read(1 << 20)
        stream.seek(-(1 << 20), 2)
        tail = stream.read()
    return digest([size, head.hex(), tail.hex()])


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
