"""Prompts from a file, in place of captions."""

from __future__ import annotations

import hashlib
from pathlib import Path

from promptecho.captions.store import CaptionRow
from promptecho.errors import DataError
from promptecho.files import read_jsonl


def read_prompts(path: str | Path) -> list[CaptionRow]:
    """Read a .txt file (a prompt a line, empty lines skipped) or a .jsonl file ({"caption"}, optional "data_id").

    A prompt without id is named after its place in the file: 000001, 000002, ...

    Raises:
        DataError: the file is missing, empty or of unknown kind, a prompt is empty or not text, an id occurs twice.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = enumerate(read_jsonl(path), start=1)
        entries = [(row.get("data_id", f"{number:06d}"), row.get("caption")) for number, row in rows]
    elif path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
        entries = [(f"{number:06d}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    else:
        raise DataError(f"{path}: give prompts as .txt (one a line) or .jsonl (a caption each)")
    if not entries:
        raise DataError(f"{path}: holds no prompts")
    made: dict[str, CaptionRow] = {}
    for number, (prompt_id, text) in enumerate(entries, start=1):
        name = f"{path}: prompt {number} (data_id {prompt_id!r})"
        if not isinstance(prompt_id, str | int) or isinstance(prompt_id, bool) or str(prompt_id) in made:
            raise DataError(f"{name}: the id occurs twice or is no text; make ids unique")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{name}: the caption is empty; remove it or fill it in")
        try:
            text.encode()
        except UnicodeEncodeError:
            text = "\0"
        if "\0" in text:
            raise DataError(f"{name}: the caption holds a NUL or half a character; correct it")
        text = text.strip()
        digest = hashlib.sha256(text.encode()).hexdigest()
        made[str(prompt_id)] = CaptionRow(str(prompt_id), text, -1, "stop", digest)
    return list(made.values())
