"""The record that `promptecho models fetch` leaves in a model's folder: what it is, and every file's size and hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from promptecho.errors import DataError
from promptecho.files import read_json, write_json

RECORD = "promptecho-model.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


class RecordedFile(BaseModel):
    """`mtime_ns` lets a second fetch skip what nobody has touched; copies of a folder may lose it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str
    mtime_ns: int | None = None


class HubRecord(BaseModel):
    """A fetched model: its hub id, the revision asked for (None: the hub's default), the commit that this was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    hub_id: str
    revision: str | None
    commit: str
    endpoint: str
    files: dict[str, RecordedFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def fits(self, revision: str | None) -> bool:
        """Whether this is what a configuration means by `revision`; None takes what is there."""
        if revision in (None, self.revision, self.commit):
            return True
        return bool(_COMMIT.fullmatch(revision)) and self.commit.startswith(revision)


def read_record(folder: Path) -> HubRecord | None:
    """The record in a model's folder; None where there is none, as in a folder that was copied by hand.

    Raises:
        DataError: the record is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    try:
        return HubRecord.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}: {first['msg'].lower()}; fetch the model again") from None


def write_record(folder: Path, record: HubRecord) -> None:
    """Write it, atomically."""
    value: dict[str, Any] = record.model_dump(mode="json")
    write_json(Path(folder) / RECORD, value)


def revision_problem(folder: Path, revision: str | None) -> str | None:
    """Why the model in `folder` is not the one that `revision` names; None where it is, or where nobody knows."""
    record = read_record(folder) if revision is not None else None
    if record is None or record.fits(revision):
        return None
    asked = "" if record.revision in (None, record.commit) else f" ({record.revision} when it was fetched)"
    return (
        f"the configuration asks for {revision}, but {folder} holds commit {record.commit}{asked} of {record.hub_id}; "
        "run `promptecho models fetch` again, or correct the revision"
    )
