"""What the checks of golden cases have in common."""

from __future__ import annotations

from typing import Any


def differs(name: str, found: Any, expected: Any) -> list[str]:
    """A mismatch, told in a line; none if the two are equal."""
    return [] if found == expected else [f"{name}: expected {expected!r}, found {found!r}"]
