"""T2I-CompBench++'s image folder: images beside a metadata.jsonl of the prompt set's lines with {data_id, filename}.

The published code reads the prompt from an image's name, up to its first underscore, and so takes no other folder.
"""

from __future__ import annotations

from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.limit import first_places
from promptecho.benchmarks.t2icompbench.prompts import CompbenchPrompt, parse_listed, read_prompts, tag_of

CompbenchImage = listing.ImageEntry[CompbenchPrompt]


class CompbenchLayout(listing.ListedLayout):
    """`Layout` of T2I-CompBench++."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        read = read_prompts(prompts)
        super().__init__(root, images_per_prompt, [prompt.row() for prompt in read])
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.prompt for prompt in read]
        self.chosen = first_places(read, tag_of, limit)


def list_images(
    root: str | Path, prompts: list[CompbenchPrompt] | None = None, images_per_prompt: int | None = None,
    only: list[CompbenchPrompt] | None = None,
) -> list[CompbenchImage]:  # fmt: skip
    """All images of a folder, see `listing.list_images`."""
    return listing.list_images(
        root, parse_listed, prompts, images_per_prompt, shown=lambda prompt: prompt.prompt, only=only
    )
