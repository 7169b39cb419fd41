"""Texts sent to judges: BENCH/templates/NAME.txt beside this file, or the user's own BENCH/NAME.txt in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.text_files import read_text

PACKAGE = Path(__file__).parent
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")  # {prompt}; the braces of JSON hold quotes, not a bare word


@dataclass(frozen=True)
class Template:
    """A text with placeholders like {prompt}. `source` is its file; `digest` is the text's, wherever it lies."""

    source: str
    text: str
    digest: str

    def fill(self, **values: str) -> str:
        """The text with every placeholder replaced at once: what a value holds is never taken for a placeholder.

        Raises:
            DataError: a value has no placeholder in the text, or a placeholder no value.
        """
        found = set(PLACEHOLDER.findall(self.text))
        if absent := sorted(values.keys() - found):
            raise DataError(f"{self.source}: lacks {{{absent[0]}}}; put it where the text of that name belongs")
        if unknown := sorted(found - values.keys()):
            known = ", ".join(f"{{{name}}}" for name in sorted(values)) or "none"
            raise DataError(f"{self.source}: {{{unknown[0]}}} is unknown; placeholders here: {known}")
        return PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


def load_template(benchmark: str, name: str, folder: str | Path | None = None) -> Template:
    """The text `name` of a benchmark, from the user's `folder` where that holds BENCH/NAME.txt. White space around it
    does not count.

    Raises:
        DataError: `folder` does not exist or holds a template that no benchmark asks for (a misspelt one would change
            nothing); a file is unreadable or empty.
    """
    path = _shipped(benchmark, name)
    if folder is not None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of templates (judges.templates)")
        for own in sorted(folder.glob("*/*.txt")):
            if not _shipped(own.parent.name, own.stem).is_file():
                shipped = sorted(f"{p.parent.parent.name}/{p.name}" for p in PACKAGE.glob("*/templates/*.txt"))
                raise DataError(f"{own}: no template has this name; names: {', '.join(shipped)}")
        own = folder / benchmark / f"{name}.txt"
        path = own if own.is_file() else path
    return read_template(path)


def read_template(path: str | Path) -> Template:
    """The text of a file. White space around it does not count.

    Raises:
        DataError: unreadable or empty.
    """
    path = Path(path)
    text = read_text(path).strip()
    if not text:
        raise DataError(f"{path}: the template is empty; fill it in or remove it")
    return Template(str(path), text, digest(text))


def _shipped(benchmark: str, name: str) -> Path:
    return PACKAGE / benchmark / "templates" / f"{name}.txt"
