"""GenEval 2's image folder: images beside a metadata.jsonl of the prompt set's lines with {data_id, filename}."""

from __future__ import annotations

from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.geneval2.prompts import Geneval2Prompt, parse_listed, read_prompts, tag_of
from promptecho.benchmarks.limit import first_places

Geneval2Image = listing.ImageEntry[Geneval2Prompt]


class Geneval2Layout(listing.ListedLayout):
    """`Layout` of GenEval 2."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        read = read_prompts(prompts)
        super().__init__(root, images_per_prompt, [prompt.row() for prompt in read])
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.prompt for prompt in read]
        self.chosen = first_places(read, tag_of, limit)


def list_images(
    root: str | Path, prompts: list[Geneval2Prompt] | None = None, images_per_prompt: int | None = None,
    only: list[Geneval2Prompt] | None = None,
) -> list[Geneval2Image]:  # fmt: skip
    """All images of a folder, see `listing.list_images`."""
    return listing.list_images(
        root, parse_listed, prompts, images_per_prompt, shown=lambda prompt: prompt.prompt, only=only
    )
