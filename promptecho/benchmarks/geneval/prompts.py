"""GenEval prompts in the official `evaluation_metadata.jsonl` format, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.text_files import read_rows

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")

Tag = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Relation = Literal["left of", "right of", "above", "below"]


class _Strict(BaseModel):
    # A misspelt key ("exlude") would silently drop a condition, so unknown keys are errors.
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class Include(_Strict):
    """Objects that must be there: at least `count`, all of `color`, each in `position` to an earlier clause."""

    class_name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)
    color: str | None = None
    position: tuple[Relation, int] | None = None


class Exclude(_Strict):
    """Objects that must not be there: fewer than `count`."""

    class_name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)


class GenevalPrompt(_Strict):
    """One prompt with the conditions its images must meet."""

    tag: Tag
    include: list[Include] = []
    exclude: list[Exclude] | None = None
    prompt: str = Field(min_length=1)

    @model_validator(mode="after")
    def _targets_come_first(self) -> GenevalPrompt:
        for index, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < index:
                raise ValueError(f"include[{index}].position points to clause {clause.position[1]}, not to an earlier")
        return self

    def metadata(self) -> dict[str, Any]:
        """The official JSON object again (absent keys stay absent)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_prompt(row: dict, where: str) -> GenevalPrompt:
    """Validate one metadata object; `where` (file:line) names it in errors.

    Raises:
        DataError: the object is not in GenEval's format.
    """
    try:
        return GenevalPrompt.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the object"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{where}: {key}: {first['msg']}{more}; expected GenEval's metadata format") from None


def read_prompts(path: str | Path) -> list[GenevalPrompt]:
    """Read a prompt set; the position in the list is the prompt's index in the image folder.

    Raises:
        DataError: the file is missing, empty or a line is malformed (names file:line).
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: no prompts in it; write one JSON object a line")
    return [parse_prompt(row, f"{path}:{line}") for line, row in rows]


def prompts_digest(prompts: list[GenevalPrompt]) -> str:
    """Digest of a prompt set: two score files with equal digests judge the same prompts in the same order."""
    return digest([prompt.metadata() for prompt in prompts])
