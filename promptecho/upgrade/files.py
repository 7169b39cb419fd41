"""Which score and table files this version reads, by the schema version that they carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho import scores
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.schema import KEY, read_schema
from promptecho.tables import table

_KINDS = (("scores/*/*/*.json", scores.SCHEMA_VERSION), ("tables/*.json", table.SCHEMA_VERSION))


@dataclass
class Schemas:
    """`files`: how many were looked at. `without`: how many carry no schema version, and are read as of schema 1.
    `unreadable`: one line for each that this version cannot read."""

    files: int = 0
    without: int = 0
    older: int = 0
    unreadable: list[str] = field(default_factory=list)


def read_schemas(results: Path, experiments: list[str]) -> Schemas:
    """What the files of these experiments carry."""
    found = Schemas()
    for folder in (results / name for name in experiments):
        for pattern, known in _KINDS:
            for path in sorted(folder.glob(pattern)):
                _look(path, known, found)
    return found


def _look(path: Path, known: int, found: Schemas) -> None:
    found.files += 1
    try:
        value: Any = read_json(path)
        schema = read_schema(path, value, known, "make it again")
    except DataError as error:
        found.unreadable.append(str(error))
        return
    found.without += not isinstance(value, dict) or KEY not in value
    found.older += schema < known
