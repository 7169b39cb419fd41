"""The score file: results/E/scores/BENCH/R/N.json, the one contract between scorers and tables."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from promptecho.errors import DataError
from promptecho.files import read_json, write_json
from promptecho.provenance import Provenance
from promptecho.schema import read_schema

SCHEMA_VERSION = 1
FIX = "delete the file and score again"


class ScoreItem(BaseModel):
    """One judged thing. `group` is the benchmark's sub-task; a failed item has no outcome, it is not a zero."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_id: str = Field(min_length=1)
    image_index: int = Field(ge=0)
    group: str = Field(min_length=1)
    outcome: float | None
    failed: bool

    @model_validator(mode="after")
    def _outcome_or_failed(self) -> ScoreItem:
        if self.failed != (self.outcome is None):
            raise ValueError("a failed item has outcome null, any other a number")
        if self.outcome is not None and not math.isfinite(self.outcome):
            raise ValueError("outcome is not finite")
        return self


class Scores(BaseModel):
    """A score file's content."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    provenance: Provenance
    summary: dict[str, FiniteFloat]
    items: list[ScoreItem] = Field(min_length=1)
    parts: list[ScoreItem] = Field(
        default_factory=list,
        description="what has a group of its own within items, such as questions by category; not counted in n",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Scores:
        for what, items in (("image", self.items), ("part", self.parts)):
            counts = Counter((item.prompt_id, item.image_index) for item in items)
            for key, count in counts.most_common(1):
                if count > 1:
                    raise ValueError(f"prompt {key[0]}, {what} {key[1]} occurs {count} times")
        failures = sum(item.failed for item in self.items)
        found, told = (len(self.items), failures), (self.provenance.n, self.provenance.failures)
        if found != told:
            raise ValueError(f"provenance tells (n, failures) = {told}, the items are {found}")
        return self


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write a score file atomically."""
    values = scores.model_dump(mode="json")
    write_json(path, values if scores.parts else {key: value for key, value in values.items() if key != "parts"})


def read_scores(path: str | Path) -> Scores:
    """Read and validate a score file; one without a schema version is from before versions were written.

    Raises:
        DataError: the file is missing, not JSON, of a newer schema or breaks the contract (names the file and the key).
    """
    value = read_json(path)
    read_schema(path, value, SCHEMA_VERSION, FIX)
    try:
        return Scores.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{path}: {key}: {first['msg']}{more}; {FIX}") from None


def raw_path(path: str | Path) -> Path:
    """Raw answers beside a score file: N.json -> N.raw.jsonl."""
    return Path(path).with_suffix(".raw.jsonl")
