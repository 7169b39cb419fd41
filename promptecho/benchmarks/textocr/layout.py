"""The image folder of text rendering: images beside a metadata.jsonl of {data_id, prompt, text, filename} an image.

Where the ids are numbers, as LongText-Bench's are, images are named after them (`00012_00003.png`: prompt 12, image 3),
which is how that benchmark's public evaluator finds an image's prompt.
"""

from __future__ import annotations

from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.limit import first_places
from promptecho.benchmarks.textocr.prompts import TextOcrPrompt, parse_prompt, read_prompts

TextOcrImage = listing.ImageEntry[TextOcrPrompt]


class TextOcrLayout(listing.ListedLayout):
    """`Layout` of text rendering."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        read = read_prompts(prompts)
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.prompt for prompt in read]
        self.chosen = first_places(read, tag_of, limit)
        numbers = [int(name) for name in self.ids] if all(map(_is_number, self.ids)) else None
        super().__init__(root, images_per_prompt, [prompt.row() for prompt in read], numbers)


def tag_of(prompt: TextOcrPrompt) -> str:
    """By what a limit is stratified: the prompt's category."""
    return prompt.group


def list_images(
    root: str | Path, prompts: list[TextOcrPrompt] | None = None, images_per_prompt: int | None = None,
    only: list[TextOcrPrompt] | None = None,
) -> list[TextOcrImage]:  # fmt: skip
    """All images of a folder, see `listing.list_images`."""
    return listing.list_images(
        root, parse_prompt, prompts, images_per_prompt, shown=lambda prompt: prompt.prompt, only=only
    )


def _is_number(name: str) -> bool:
    """Whether an id is the usual form of a number, so that different ids are different numbers."""
    return name.isascii() and name.isdigit() and len(name) <= 9 and str(int(name)) == name
