"""The schema version of a file: older ones are read, newer ones are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptecho.errors import DataError

KEY = "schema_version"


def read_schema(path: str | Path, value: Any, known: int, fix: str) -> int:
    """The schema version of a file's content; one that names none is from before they were written, which is 1.

    Args:
        known: the newest schema that this version reads.
        fix: what to do about a damaged file.

    Raises:
        DataError: the schema is newer than `known`, or no number that a schema has.
    """
    found = value.get(KEY, 1) if isinstance(value, dict) else 1
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DataError(f"{path}: {KEY} is {found!r}, expected a number from 1 to {known}; {fix}")
    if found > known:
        raise DataError(
            f"{path}: {KEY} is {found}, this version reads up to {known}: a newer version of promptecho wrote it; read "
            "it with that one"
        )
    return found
