"""DenseAlignBench's image folder: images beside a metadata.jsonl of {data_id, caption, filename}, one line an image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.captions.prompts import Prompt, read_prompts
from promptecho.benchmarks.listing import METADATA as METADATA  # part of this format

ImageEntry = listing.ImageEntry[Prompt]


class CaptionsLayout(listing.ListedLayout):
    """`Layout` of captions."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int):
        read = read_prompts(prompts)
        super().__init__(root, images_per_prompt, [asdict(prompt) for prompt in read])
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.caption for prompt in read]


def list_images(
    root: str | Path, prompts: list[Prompt] | None = None, images_per_prompt: int | None = None
) -> list[ImageEntry]:
    """All images of a folder, see `listing.list_images`."""
    return listing.list_images(root, _read_prompt, prompts, images_per_prompt, shown=lambda prompt: prompt.caption)


def _read_prompt(row: dict, where: str) -> Prompt:
    data_id = listing.read_id(row.get("data_id"), where)
    return Prompt(data_id, listing.read_text(row, "caption", f"{where} (data_id {data_id!r})"))
