"""UniGenBench's image folder: `INDEX_IMAGE.png`, as the official evaluator reads it, and beside that metadata.jsonl."""

from __future__ import annotations

from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.limit import first_places
from promptecho.benchmarks.unigenbench.prompts import UnigenbenchPrompt, parse_prompt, read_prompts, tag_of

UnigenbenchImage = listing.ImageEntry[UnigenbenchPrompt]


class UnigenbenchLayout(listing.ListedLayout):
    """`Layout` of UniGenBench: image 1 of prompt 17 is `17_1.png`, whatever its place in the file."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        read = read_prompts(prompts)
        super().__init__(
            root, images_per_prompt, [prompt.row() for prompt in read], [int(prompt.data_id) for prompt in read]
        )
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.prompt for prompt in read]
        self.chosen = first_places(read, tag_of, limit)

    def image_path(self, p: int, i: int) -> Path:
        return self._root / f"{self._numbers[p]}_{i}.png"


def list_images(
    root: str | Path, prompts: list[UnigenbenchPrompt] | None = None, images_per_prompt: int | None = None,
    only: list[UnigenbenchPrompt] | None = None,
) -> list[UnigenbenchImage]:  # fmt: skip
    """All images of a folder, see `listing.list_images`."""
    return listing.list_images(
        root, parse_prompt, prompts, images_per_prompt, shown=lambda prompt: prompt.prompt, only=only
    )
