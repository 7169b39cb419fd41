"""What the checks of golden cases have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One kind of golden file: the keys that tell its cases from others, and what checks one of them.

    `function` takes the case, and what `also` returns, where that is given: called with the golden folder, the file,
    and the file of official prompts that the user gave or None. It returns what differs, a line each.
    """

    keys: frozenset[str]
    function: Callable[..., list[str]]
    also: Callable[[Path, Path, Path | None], Any] | None = None


def differs(name: str, found: Any, expected: Any) -> list[str]:
    """A mismatch as one line; none if the two are equal."""
    return [] if found == expected else [f"{name}: expected {expected!r}, found {found!r}"]
