"""What a page shows of a raw record (N.raw.jsonl): the judge's words, boxes, tables, and whatever else it holds.

A record is read by what its values look like, so that a benchmark from outside is shown without code of its own:

- `reason`, `reasoning` or `reply` are words;
- an object with `box` [x1, y1, x2, y2] is a box, named by its other texts; below `detections` or `boxes` stand lists
  [x1, y1, x2, y2, score] by name. Pixels are those of the image. What is below `baseline` belongs to the image that
  this one was compared with;
- a list of objects is a table, and so are `questions` together with other lists of their length. A row is marked as
  wrong where `answers` is not what is `expected`, or `counted` is 0;
- all else is listed by its key, unless it is the same in all records: that says nothing of one image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Shown elsewhere on the page, or only of use to the scorer itself.
HIDDEN = {"prompt_id", "image_index", "group", "failed", "outcome", "correct", "prompt", "caption", "filename"}
HIDDEN |= {"candidate", "baseline"}  # names of a pair's files
WORDS = ("reason", "reasoning", "reply")
BOXES = ("detections", "boxes")
SIDE = ("candidate", "baseline")
LONGEST = 2000  # characters of one text

Box = tuple[float, float, float, float, str]


@dataclass
class ShownTable:
    """A table of texts; `wrong` says of each row whether it counts against the image."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    wrong: list[bool]


@dataclass
class ShownRecord:
    """What is shown of one image beside its verdict; `baseline_boxes` are in the image that it was compared with."""

    words: str = ""
    boxes: list[Box] = field(default_factory=list)
    baseline_boxes: list[Box] = field(default_factory=list)
    tables: list[ShownTable] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def constant_keys(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys whose value is the same in all records, where there are several."""
    if len(records) < 2:
        return set()
    first, *others = records
    return {key for key in first if all(key in one and one[key] == first[key] for one in others)} - {*WORDS}


def show_record(record: Mapping[str, Any], constant: Iterable[str] = (), longest: int = LONGEST) -> ShownRecord:
    """Sort a record's values into what a page shows.

    Args:
        constant: keys that say nothing of one image.
        longest: longer texts are cut, and say so.
    """
    shown, used = ShownRecord(), {*HIDDEN, *constant}
    found = next((key for key in WORDS if isinstance(record.get(key), str) and record[key].strip()), None)
    if found is not None:
        shown.words = _cut(record[found], longest)
        used.add(found)
    names: Mapping[str, Any] = record["colors"] if isinstance(record.get("colors"), dict) else {}
    for key, value in record.items():
        before = len(shown.boxes) + len(shown.baseline_boxes)
        _collect(value, key, names, shown, at_baseline=False)
        if len(shown.boxes) + len(shown.baseline_boxes) > before or key in BOXES:
            used |= {key, "colors"} if key in BOXES else {key}
    if (asked := _asked(record)) is not None:
        shown.tables.append(_table("questions", asked, longest))
        used |= set(asked[0])
    for key, value in record.items():
        if key in used or value in (None, "", [], {}):
            continue
        if (rows := _rows(value)) is not None:
            shown.tables.append(_table(key, rows, longest))
        elif isinstance(value, dict) and not any(isinstance(one, dict | list) for one in value.values()):
            shown.facts += [(f"{key} {name}", _cut(_text(one), longest)) for name, one in value.items()]
        else:
            shown.facts.append((key, _cut(_text(value), longest)))
    return shown


def _collect(value: Any, name: str, names: Mapping[str, Any], into: ShownRecord, *, at_baseline: bool) -> None:
    """Boxes in a value of any depth."""
    if isinstance(value, list):
        for one in value:
            if isinstance(one, dict):
                _collect(one, name, names, into, at_baseline=at_baseline)
        return
    if not isinstance(value, dict):
        return
    boxes = into.baseline_boxes if at_baseline else into.boxes
    if _is_box(value.get("box")):
        texts = [one for key, one in value.items() if isinstance(one, str) and key != "box"]
        boxes.append(_box(value["box"], " ".join(texts), value.get("score")))
        return
    for key, one in value.items():
        if name in BOXES and isinstance(one, list) and one and all(_is_box(box) for box in one):
            colors = names.get(key)
            told = colors if isinstance(colors, list) and len(colors) == len(one) else [""] * len(one)
            for box, color in zip(one, told, strict=True):
                boxes.append(_box(box, f"{color or ''} {key}".strip(), box[4] if len(box) > 4 else None))
        else:
            _collect(one, key if name not in BOXES else name, names, into, at_baseline=at_baseline or key == SIDE[1])


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (4, 5)
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
    )


def _box(value: Sequence[float], label: str, score: Any) -> Box:
    x1, y1, x2, y2 = (round(float(one), 1) for one in value[:4])
    told = f"{score:.2f}" if isinstance(score, int | float) and not isinstance(score, bool) else ""
    return x1, y1, x2, y2, " ".join(part for part in (label, told) if part)[:200]


def _asked(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """`questions` as texts, with the other lists of their length beside them."""
    questions = record.get("questions")
    if not (isinstance(questions, list) and questions and all(isinstance(one, str) for one in questions)):
        return None
    beside = {
        key: value for key, value in record.items()
        if isinstance(value, list) and len(value) == len(questions) and not any(isinstance(v, dict) for v in value)
    }  # fmt: skip
    return [dict(zip(beside, row, strict=True)) for row in zip(*beside.values(), strict=True)]


def _rows(value: Any) -> list[dict[str, Any]] | None:
    """A list of objects, or of lists of one length, as rows; None for all else."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(one, dict) for one in value):
        return value
    if all(isinstance(one, list) for one in value) and len({len(one) for one in value}) == 1:
        return [{str(place): cell for place, cell in enumerate(one)} for one in value]
    return None


def _table(name: str, rows: Sequence[Mapping[str, Any]], longest: int) -> ShownTable:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    titles = [] if all(column.isdecimal() for column in columns) else [column.replace("_", " ") for column in columns]
    cells = [[_cut(_text(row.get(column)), longest) for column in columns] for row in rows]
    return ShownTable(name.replace("_", " "), titles, cells, [_is_wrong(row) for row in rows])


def _is_wrong(row: Mapping[str, Any]) -> bool:
    if "expected" in row and "answers" in row:
        return _text(row["expected"]).casefold() != _text(row["answers"]).casefold()
    if "counted" in row:
        return row["counted"] == 0
    return any(value is False for value in row.values())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return ", ".join(_text(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} characters more)"
