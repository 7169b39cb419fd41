"""Texts sent to judges: BENCH/templates/NAME.txt beside this file, or the user's own BENCH/NAME.txt in their place."""

from __future__ import annotations

from pathlib import Path

from promptecho.errors import DataError
from promptecho.templates import Template, read_template

PACKAGE = Path(__file__).parent


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


def _shipped(benchmark: str, name: str) -> Path:
    return PACKAGE / benchmark / "templates" / f"{name}.txt"
