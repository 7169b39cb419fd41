"""Texts for models with placeholders like {prompt}, read from files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.text_files import read_text

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
