"""Files on a command line: `--image a b c`, `--image a --image b` and plain `a b c` mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer


def given_files(option: str, *groups: Sequence[Path] | None) -> list[Path]:
    """All files of an option and of the arguments behind it, in this order.

    Raises:
        BadParameter: none were given.
        DataError: some do not exist; names all of them.
    """
    from promptecho.errors import DataError, listed
    from promptecho.names import shown

    files = [file for group in groups for file in group or ()]
    if not files:
        raise typer.BadParameter(f"give the files, behind {option} or without it")
    if missing := [f"{shown(file)}: no such file or folder" for file in files if not file.exists()]:
        raise DataError(listed(missing, "missing files"))
    return files
