"""Models that are described without their files: what a family's `sizes`, or promptecho/plan/models, say of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from promptecho.files import read_json


def descriptions(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Of each model that these files describe: its `names`, and the contents of its configuration files by part."""
    return [one for path in paths for one in _variants(read_json(path))]


def described_as(source: str, paths: Iterable[Path]) -> dict[str, Any] | None:
    """What they say of the model `source`; None where nothing."""
    return next((one for one in descriptions(paths) if source in one["names"]), None)


def _variants(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of a description: each of its `variants`, which may have such again, with what they share."""
    shared = {key: value for key, value in content.items() if key != "variants"}
    if "variants" not in content:
        return [shared]
    return [one for variant in content["variants"] for one in _variants({**shared, **variant})]
