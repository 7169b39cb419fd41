"""TIIF-Bench's prompts: the official folders, and the one file that they are packed into.

Officially a set is a pair of folders, `X_prompts` and `X_eval_prompts` (X = testmini or test), with a file for each
attribute; line i of an attribute's files is prompt i, and its image is named `i.png`. The packed file has one JSON
object a line: {type, index, short_description, long_description, questions, answers}. Each object is two prompts: its
short and its long description, with the same questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, LENGTHS
from promptecho.errors import DataError
from promptecho.files import digest, write_jsonl
from promptecho.text_files import read_rows

PROMPTS, EVAL = "_prompts.jsonl", "_eval_prompts.jsonl"


class TiifPrompt(BaseModel):
    """One line of the packed file. `type` is the attribute, `index` the prompt's line in the attribute's files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: str
    index: int = Field(ge=0)
    short_description: str
    long_description: str
    questions: list[str] = Field(min_length=1)
    answers: list[str]

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        # Also keeps the folder names made of it inside the image folder.
        if value not in ATTRIBUTES:
            raise ValueError(f"{value!r} is none of TIIF-Bench's attributes: {', '.join(ATTRIBUTES)}")
        return value

    @field_validator("short_description", "long_description")
    @classmethod
    def _has_text(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty")
        return value

    @model_validator(mode="after")
    def _answered(self) -> TiifPrompt:
        if len(self.questions) != len(self.answers):
            raise ValueError(f"{len(self.questions)} questions and {len(self.answers)} answers")
        for question, answer in zip(self.questions, self.answers, strict=True):
            if not question.strip() or answer.strip().lower() not in ("yes", "no"):
                raise ValueError(f"question {question!r} has the answer {answer!r}; expected yes or no")
        return self

    @property
    def prompt_id(self) -> str:
        return f"{self.type}/{self.index}"

    def text(self, length: str) -> str:
        """The description of that length, to the letter."""
        return self.short_description if length == "short" else self.long_description

    def row(self) -> dict[str, Any]:
        """The JSON object again."""
        return self.model_dump(mode="json")


def _parse(row: dict, where: str) -> TiifPrompt:
    try:
        return TiifPrompt.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the object"
        told = first["msg"].removeprefix("Value error, ")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{where}: {key}: {told}{more}; expected TIIF-Bench's format") from None


def _check_order(prompts: list[TiifPrompt], path: Path) -> None:
    """An attribute's indices are its lines: 0, 1, 2, ... in this order. A gap would shift images against questions."""
    counts: dict[str, int] = {}
    for prompt in prompts:
        expected = counts.get(prompt.type, 0)
        if prompt.index != expected:
            raise DataError(
                f"{path}: {prompt.type} {prompt.index} stands where {prompt.type} {expected} belongs; pack the set "
                "again, whole"
            )
        counts[prompt.type] = expected + 1


def read_prompts(path: str | Path) -> list[TiifPrompt]:
    """Read a packed prompt file.

    Raises:
        DataError: the file is missing or empty, a line is malformed (names it), or an attribute's prompts have gaps.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: no prompts in it; pack the official folders again")
    prompts = [_parse(row, f"{path}:{line}") for line, row in rows]
    _check_order(prompts, path)
    return prompts


def write_prompts(path: str | Path, prompts: list[TiifPrompt]) -> None:
    """Write a packed prompt file."""
    write_jsonl(path, [prompt.row() for prompt in prompts])


def prompts_digest(prompts: list[TiifPrompt]) -> str:
    """Digest of a prompt set: two score files with equal digests judge the same prompts in the same order."""
    return digest([prompt.row() for prompt in prompts])


def pack(prompts: str | Path, questions: str | Path, out: str | Path | None = None) -> list[TiifPrompt]:
    """The official folders `X_prompts` and `X_eval_prompts` as one list, attributes sorted by name; written to `out`.

    Lines are aligned by number. `corrspond_idx` of some real_world lines is where the prompt stands in another version
    of the set, not here, and is left out. Prompts that occur twice are kept: each has its own image officially.

    Raises:
        DataError: a folder or one of a pair of files is missing, or the files of a pair do not fit (names them).
    """
    folders = Path(prompts), Path(questions)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give TIIF-Bench's data/X_prompts and data/X_eval_prompts")
    names, judged = (
        {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}
        for folder, suffix in zip(folders, (PROMPTS, EVAL), strict=True)
    )
    if not names or names != judged:
        odd = sorted(names ^ judged)
        culprit = f"attribute {odd[0]!r} has only one of its two files" if odd else f"no files *{PROMPTS}"
        raise DataError(f"{folders[0]} and {folders[1]}: {culprit}; fetch the set again")
    packed: list[TiifPrompt] = []
    for name in sorted(names):
        texts_path, questions_path = folders[0] / f"{name}{PROMPTS}", folders[1] / f"{name}{EVAL}"
        texts, asked = ([row for _, row in read_rows(file)] for file in (texts_path, questions_path))
        if len(texts) != len(asked):
            raise DataError(f"{texts_path} has {len(texts)} lines, {questions_path} {len(asked)}; fetch the set again")
        for index, (text, ask) in enumerate(zip(texts, asked, strict=True)):
            where = f"{texts_path}: prompt {index}"
            if text.get("type") != name or ask.get("type") != name:
                raise DataError(f"{where}: type is not {name!r} here or in {questions_path.name}; fetch the set again")
            row = {
                "type": name,
                "index": index,
                **{f"{length}_description": text.get(f"{length}_description") for length in LENGTHS},
                "questions": ask.get("yn_question_list"),
                "answers": ask.get("yn_answer_list"),
            }
            packed.append(_parse(row, where))
    if out is not None:
        write_prompts(out, packed)
    return packed


def pack_set(folder: Path) -> None:
    """Make `testmini.jsonl` and `test.jsonl` of a fetched set from its official folders.

    Raises:
        DataError: as `pack`.
    """
    for name in ("testmini", "test"):
        pack(folder / f"{name}_prompts", folder / f"{name}_eval_prompts", folder / f"{name}.jsonl")
