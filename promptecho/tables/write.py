"""The files of a table."""

from __future__ import annotations

from pathlib import Path

from promptecho.files import write_text
from promptecho.tables.html import to_html
from promptecho.tables.table import Table, to_csv, to_json, to_latex, to_markdown

FORMATS = {"md": to_markdown, "html": to_html, "csv": to_csv, "tex": to_latex, "json": to_json}


def write(table: Table, folder: Path) -> list[Path]:
    """Write NAME.md, .html, .csv, .tex and .json atomically; returns their paths."""
    paths = []
    for suffix, render in FORMATS.items():
        path = folder / f"{table.name}.{suffix}"
        write_text(path, render(table))
        paths.append(path)
    return paths
