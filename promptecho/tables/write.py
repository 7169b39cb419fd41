"""The files of a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from promptecho.files import write_text
from promptecho.tables.html import to_html
from promptecho.tables.latex import to_latex
from promptecho.tables.table import Table, to_csv, to_json, to_markdown

FORMATS: dict[str, Callable[[Table], str]] = {
    "{}.md": to_markdown,
    "{}.html": to_html,
    "{}.csv": to_csv,
    "{}.tex": to_latex,
    "short/{}.tex": partial(to_latex, short=True),
    "{}.json": to_json,
}


def write(table: Table, folder: Path) -> list[Path]:
    """Write NAME.md, .html, .csv, .tex, short/NAME.tex and NAME.json atomically; returns their paths."""
    paths = []
    for place, render in FORMATS.items():
        path = folder / place.format(table.name)
        write_text(path, render(table))
        paths.append(path)
    return paths
