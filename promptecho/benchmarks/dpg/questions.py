"""DPG-Bench's questions: the official nine-column CSV, or the same rows as JSON Lines.

A row is one question about the images of a prompt (`item_id`). Rows are read as text and in file order: `item_id` may
look like a number ("120"), and the official rules depend on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import DataError, counted
from promptecho.files import digest
from promptecho.text_files import read_rows as read_table

COLUMNS = (
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)
MAY_BE_EMPTY = ("keywords", "category_broad", "category_detailed")  # nothing is scored by them
SHOWN = 3  # faulty rows named in an error before "and n more"


@dataclass(frozen=True)
class QuestionRow:
    """One question as the file has it. `nth` counts the rows of its prompt from 0; `where` names it in errors."""

    where: str
    nth: int
    cells: dict[str, str]

    @property
    def item_id(self) -> str:
        return self.cells["item_id"]

    @property
    def question(self) -> str:
        return self.cells["question_natural_language"]


@dataclass(frozen=True)
class DpgQuestion:
    """One question to score. `id` is its proposition_id, `parents` those that must be answered yes for it to count
    (0 is none); `category` the official L2 category, e.g. "entity - whole"; `nth` the row of its prompt."""

    id: int
    text: str
    parents: tuple[int, ...]
    category: str
    nth: int

    @property
    def broad(self) -> str:
        """The official L1 category, e.g. "entity"."""
        return self.category.split("-")[0].strip()


@dataclass(frozen=True)
class DpgPrompt:
    """One prompt: `text` is what its images are generated from."""

    item_id: str
    text: str


def _text(value: object, column: str, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} is {value!r}, no text; expected the official columns {', '.join(COLUMNS)}")
    if not value.strip() and column not in MAY_BE_EMPTY:
        raise DataError(f"{where}: {column} is empty; correct the row")
    return value


def read_rows(path: str | Path) -> list[QuestionRow]:
    """All rows of a question file, in its order: CSV where the name ends in .csv, JSON Lines otherwise.

    What a row says is checked where it is used (`question_of`), so that a faulty dependency does not hide the prompts.

    Raises:
        DataError: the file is missing, damaged or empty, a column is missing, or a cell that matters is empty.
    """
    # a quoted text may hold line breaks: a row is named by the line where it ends
    found = [(f"{path}:{line}", row) for line, row in read_table(path)]
    if not found:
        raise DataError(f"{path}: no questions in it; expected the official columns {', '.join(COLUMNS)}")
    rows: list[QuestionRow] = []
    counts: dict[str, int] = {}
    for where, cells in found:
        if absent := [column for column in COLUMNS if column not in cells]:
            raise DataError(f"{where}: no column {absent[0]!r}; expected the official columns {', '.join(COLUMNS)}")
        row = QuestionRow(where, 0, {column: _text(cells[column], column, where) for column in COLUMNS})
        nth = counts.get(row.item_id, 0)
        counts[row.item_id] = nth + 1
        rows.append(QuestionRow(where, nth, row.cells))
    return rows


def prompts_of(rows: Sequence[QuestionRow]) -> list[DpgPrompt]:
    """The distinct prompts in order of first appearance, each with the text of its first row.

    Raises:
        DataError: rows of one item_id have texts that differ in more than white space.
    """
    texts: dict[str, str] = {}
    for row in rows:
        text = row.cells["text"].strip()
        if texts.setdefault(row.item_id, text).split() != text.split():
            raise DataError(
                f"{row.where}: item_id {row.item_id!r} has another text than before; one item_id is one prompt"
            )
    return [DpgPrompt(item_id, text) for item_id, text in texts.items()]


def question_of(row: QuestionRow) -> DpgQuestion:
    """A row as a question.

    Raises:
        DataError: proposition_id or dependency are not whole numbers; the official evaluator stops there as well.
    """
    numbers = []
    for column, parts in (
        ("proposition_id", [row.cells["proposition_id"]]),
        ("dependency", row.cells["dependency"].split(",")),
    ):
        try:
            numbers.append(tuple(int(part) for part in parts))
        except ValueError:
            raise DataError(
                f"{row.where}: item_id {row.item_id!r}: {column} {row.cells[column]!r} is malformed, expected "
                f"{'a number' if column == 'proposition_id' else 'numbers like 0 or 1,2'}; correct the row"
            ) from None
    (number,), parents = numbers
    return DpgQuestion(number, row.question, parents, row.cells["tuple"].split("(")[0].strip(), row.nth)


def parse_questions(rows: Sequence[QuestionRow]) -> list[DpgQuestion]:
    """All rows as questions; every malformed one is reported, not only the first.

    Raises:
        DataError: see question_of.
    """
    questions, problems = [], []
    for row in rows:
        try:
            questions.append(question_of(row))
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = f"; and {counted(len(problems) - SHOWN, 'more row')}" if len(problems) > SHOWN else ""
        raise DataError("; ".join(problems[:SHOWN]) + more)
    return questions


def rows_digest(rows: Sequence[QuestionRow]) -> str:
    """Digest of a question file's content: equal for the CSV and the same rows as JSON Lines."""
    return digest([row.cells for row in rows])
