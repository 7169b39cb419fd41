"""OneIG-Bench's files as prompt sets of ours: questions in DPG-Bench's nine columns, and rows of text rendering.

The published files are lists of prompts by category and id; beside them questions and what they depend on by class and
id, as JSON in JSON; and the required texts by id, as Python writes a list.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path
from typing import Any

from promptecho.benchmarks.dpg.prompt_rows import Row, write_rows
from promptecho.errors import DataError
from promptecho.files import read_json, write_jsonl
from promptecho.text_files import read_text

# Category of the published list -> class, and how many prompts it has.
CLASSES = {
    "Anime_Stylization": ("anime", 245),
    "Portrait": ("human", 244),
    "General_Object": ("object", 206),
    "Multilingualism": ("multilingualism", 200),
}
TEXT, TEXTS = "Text_Rendering", 200
ONLY_CHINESE = "Multilingualism"
AGAIN = "delete the folder and fetch it again"
Prompts = dict[tuple[str, str], dict[str, str]]  # (category, id) -> row


def pack_set(folder: Path) -> None:
    """Make the four prompt files of a fetched set.

    Raises:
        DataError: a published file is not what it was, or not as many prompts are in it.
    """
    for end, list_name, column in (("", "OneIG-Bench.csv", "prompt_en"), ("_zh", "OneIG-Bench-ZH.csv", "prompt_cn")):
        prompts = {(row["category"], row["id"]): row for row in _table(folder / list_name, ("category", "id", column))}
        rows: list[Row] = []
        for category, (name, count) in CLASSES.items():
            if end or category != ONLY_CHINESE:
                rows += _questions(folder / f"scripts/alignment/Q_D/{name}{end}.json", prompts, category, column, count)
        write_rows(rows, folder / f"alignment{end}.csv")
        texts = _texts(folder / f"scripts/text/text_content{end}.csv", prompts, column)
        write_jsonl(folder / f"text{end}.jsonl", texts)


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV."""
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    absent = [column for column in columns if not rows or rows[0].get(column) is None]
    if absent:
        raise DataError(f"{path}: no column {absent[0]}; {AGAIN}")
    return rows


def _questions(path: Path, prompts: Prompts, category: str, column: str, count: int) -> list[Row]:
    """The questions of a class as rows of the nine columns."""
    asked = read_json(path)
    if not isinstance(asked, dict) or len(asked) != count:
        many = len(asked) if isinstance(asked, dict) else "no"
        raise DataError(f"{path}: questions about {many} prompts, not {count}; {AGAIN}")
    name, rows = CLASSES[category][0], []
    for number, entry in asked.items():
        where = f"{path}: {number}"
        if (category, number) not in prompts:
            raise DataError(f"{where}: no prompt of {category} has this id; {AGAIN}")
        questions, parents = (_numbered(entry, key, where) for key in ("question", "dependency"))
        if [*questions] != [*range(1, len(questions) + 1)]:
            raise DataError(f"{where}: its questions are not numbered from 1; {AGAIN}")
        for n, on in parents.items():
            if on and not (isinstance(on, list) and all(str(one).isdecimal() for one in on)):
                raise DataError(f"{where}: dependency of question {n} is no list of numbers; {AGAIN}")
        rows += [
            {
                "item_id": f"{name}_{number}",
                "text": prompts[category, number][column],
                "keywords": "",
                "proposition_id": str(n),
                "dependency": ",".join(map(str, parents.get(n) or [0])),
                "category_broad": name,
                "category_detailed": "",
                "tuple": name,
                "question_natural_language": question,
            }
            for n, question in questions.items()
        ]
    return rows


def _numbered(entry: Any, key: str, where: str) -> dict[int, Any]:
    """The entry's JSON object of `key`, which may be in a text, by number."""
    try:
        value = json.loads(entry[key]) if isinstance(entry[key], str) else entry[key]
        return {int(number): one for number, one in value.items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DataError(f"{where}: {key} is no JSON object of numbers; {AGAIN}") from None


def _texts(path: Path, prompts: Prompts, column: str) -> list[dict[str, Any]]:
    """The prompts of text rendering, with the texts that they require."""
    rows = _table(path, ("id", column, "text_content"))
    if len(rows) != TEXTS:
        raise DataError(f"{path}: {len(rows)} prompts, not {TEXTS}; {AGAIN}")
    made = []
    for row in rows:
        try:
            texts = ast.literal_eval(row["text_content"])
        except (ValueError, SyntaxError):
            texts = None
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{path}: id {row['id']}: text_content is no list of texts; {AGAIN}")
        one: dict[str, Any] = {"data_id": row["id"], "prompt": row[column], "text": texts}
        if kind := prompts.get((TEXT, row["id"]), {}).get("class"):
            one["category"] = kind
        made.append(one)
    return made
