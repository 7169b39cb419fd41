"""Prompts of image sets from held-out captions, with their source images where they have some."""

from __future__ import annotations

from pathlib import Path

from promptecho.benchmarks.captions.prompts import write_first
from promptecho.captions.sources import keep, read_sources
from promptecho.files import atomic_path, read_jsonl, write_jsonl
from promptecho.source_images import KEY


def write_heldout(captions: str | Path, count: int, out: str | Path) -> None:
    """Write the first `count` prompts of a file, in its order; copies of their source images lie beside `out`.

    Raises:
        DataError: as `write_first`, or an image is missing.
    """
    sources = read_sources(captions)
    if not sources:
        write_first(captions, count, out)
        return
    with atomic_path(Path(out)) as temporary:
        write_first(captions, count, temporary)
        rows = read_jsonl(temporary)
        own = {one["data_id"]: {KEY: keep(sources[one["data_id"]], Path(out).parent)} for one in rows}
        write_jsonl(temporary, [row | own[row["data_id"]] for row in rows])
