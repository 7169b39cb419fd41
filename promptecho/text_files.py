"""Text files that people bring (prompts, labels, lists of files), in the forms in which their tools save them.

One reader for all of them: UTF-8 and, with a byte order mark, UTF-16 and UTF-32; lines that end in LF, CR LF or CR;
JSON Lines, and CSV as spreadsheets write it (comma, semicolon or tab, quoted texts with line breaks in them). The same
texts mean the same in each form. What is in none of them is refused by its line: a guessed encoding could change a
letter unnoticed. Files of our own are written as one of them (`files.read_jsonl`).
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptecho.errors import DataError, listed, unreadable
from promptecho.foreign import START, other_kind, refuse_pipe
from promptecho.pointers import refuse_pointer

LISTS = (".txt", ".lst")
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv")
MARKS = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SAVE_AS = "save the file as UTF-8 (spreadsheets call it 'CSV UTF-8')"
LONGEST_CELL = 1 << 30  # characters; csv's own limit of 131,072 is less than a text may have in the other forms
NEVER = "\x1f"  # a delimiter that no text holds


def suffix_of(path: str | Path) -> str:
    """The ending of a file's name in lower case: .TXT is .txt."""
    return Path(path).suffix.lower()


def read_text(path: str | Path) -> str:
    """The text of a file, without byte order mark and with LF at the end of each line.

    Raises:
        DataError: the file is missing, unreadable or something else than text, or its bytes are in none of the
            encodings; names the line.
    """
    path = Path(path)
    try:
        refuse_pipe(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    refuse_pointer(path, data)
    if other := other_kind(data[:START], "text"):
        raise DataError(f"{path}: {other}")
    mark, encoding = next(((m, name) for m, name in MARKS if data.startswith(m)), (b"", "utf-8"))
    body = data[len(mark) :]
    if not mark and 4 * body[:4096].count(0) > len(body[:4096]):
        why = "a quarter of it is zero bytes: UTF-16 without its byte order mark, or no text"
        raise DataError(f"{path}: {why}; {SAVE_AS}")
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        before = body[: error.start].decode(encoding)
        raise DataError(f"{path}:{_undecodable(before, body, error, encoding)}; {SAVE_AS}") from None
    # Files that were put one behind the other keep their marks, at the start of a line.
    return _with_lf(text).replace("\n\ufeff", "\n").removeprefix("\ufeff")


def _undecodable(before: str, body: bytes, error: UnicodeDecodeError, encoding: str) -> str:
    start = _with_lf(before)
    line = start.count("\n") + 1
    behind = start.rsplit("\n", 1)[-1][-30:]
    if encoding != "utf-8":
        return f"{line}: not {encoding.upper()} behind {behind!r}"
    byte = f"byte 0x{body[error.start]:02x}"
    if error.start + 1 == len(body) or error.reason == "unexpected end of data":
        return f"{line}: not UTF-8: {byte} behind {behind!r} begins a letter that is cut off"
    return f"{line}: not UTF-8: {byte} behind {behind!r}, so it is in another encoding (Windows-1252, GBK, ...)"


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that hold more than white space, each with its number from 1, without white space at their ends.

    Raises:
        DataError: as `read_text`.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_rows(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a JSON Lines, CSV or TSV file, each with the number of its (last) line.

    A CSV's first row names the columns; a cell is a text, and rows of empty cells are left out. Its delimiter is what
    separates the names; where there is one column alone, a row is one text, whatever commas it holds.

    Raises:
        DataError: as `read_text`; or a line is no JSON object, or a CSV row does not fit its header; names the line.
    """
    path, text = Path(path), read_text(path)
    if suffix_of(path) in (".csv", ".tsv"):
        return _csv_rows(path, text)
    return json_rows(path, text)


def json_rows(path: Path | str, text: str) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a text that has one a line, each with the number of its line; empty lines are left out.

    Raises:
        DataError: lines that hold no JSON object, or one with a key twice; all are named.
    """
    rows, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            problems.append(f"{path}:{number}: not valid JSON ({error.msg}, column {error.colno})")
            continue
        except RecursionError:
            problems.append(f"{path}:{number}: not valid JSON (nested too deep)")
            continue
        except _KeyTwiceError as error:
            problems.append(f"{path}:{number}: the key {error.args[0]!r} stands there twice; keep one of them")
            continue
        except ValueError:
            problems.append(f"{path}:{number}: not valid JSON (a number of too many digits)")
            continue
        if not isinstance(row, dict):
            problems.append(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
            continue
        rows.append((number, row))
    if problems:
        raise DataError(listed(problems, "lines"))
    return rows


class _KeyTwiceError(ValueError):
    """JSON lets a later key silently replace an earlier one of the same name."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwiceError(next(name for name in names if names.count(name) > 1))
    return made


def value_of(row: dict[str, Any], names: Sequence[str]) -> tuple[str, Any] | None:
    """The first of `names` that the row has, in any case and with white space around it, and its value."""
    found = {str(key).strip().casefold(): key for key in reversed(row)}
    return next(((name, row[found[name]]) for name in names if name in found), None)


def differing(row: dict[str, Any], names: Sequence[str]) -> str | None:
    """What to say of a row that has several of `names` with different texts, of which one would be taken silently;
    None where it has one, or the same text under each. Empty ones, and what is no text, do not count."""
    texts = {key: value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()}
    found = {key: text for key, text in texts.items() if str(key).strip().casefold() in names}
    if len(set(found.values())) < 2:
        return None
    told = ", ".join(f"{key}: {value!r:.40}" for key, value in found.items())
    return f"{' and '.join(map(repr, found))} differ ({told}); keep one of them"


def _csv_rows(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    delimiter, skipped = None, 0
    first, _, rest = text.partition("\n")
    said = first.strip().strip('"')
    if said.lower().startswith("sep=") and len(said) == 5:  # a spreadsheet's own note
        delimiter, text, skipped = said[4], rest, 1
    if delimiter is None:
        first = next((line for line in text.split("\n") if line.strip()), "")
        counts = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in "\t;,"}
        delimiter = max(counts, key=counts.__getitem__)
        delimiter = delimiter if counts[delimiter] > 1 else NEVER
    raw: list[str] = []
    header: list[str] = []
    rows, problems = [], []
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num + skipped}"
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                raw, header = cells, [cell.strip() for cell in cells]
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    raise DataError(f"{where}: two columns are named {twice[0]!r}; rename one")
                continue
            if cells == raw:  # files that were put one behind the other
                problems.append(f"{where}: the first row, which names the columns, once more; remove it")
                continue
            if len(cells) != len(header):
                problems.append(
                    f"{where}: {len(cells)} cells, but the first row names {len(header)} columns; put a text that "
                    f"holds {delimiter!r} in double quotes"
                )
                continue
            rows.append((reader.line_num + skipped, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        reason = str(error).replace(f"'{NEVER}'", "the end of the line")
        raise DataError(
            f"{path}:{reader.line_num + skipped}: not valid CSV ({reason}); double quotes inside a text are doubled"
        ) from None
    if problems:
        raise DataError(listed(problems, "rows"))
    return rows
