"""DenseAlignBench's image folder: images beside a metadata.jsonl of {data_id, caption, filename}, one line an image.

The authors' inference scripts write `index` in place of `data_id`: the caption's place in their shuffle of the prompt
set, which does not identify it in another set. Where the prompt set is given, such images are found by their captions.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from promptecho.benchmarks import listing
from promptecho.benchmarks.captions.prompts import CaptionPrompt, read_prompts
from promptecho.benchmarks.limit import first_places
from promptecho.benchmarks.listing import METADATA as METADATA  # part of this format
from promptecho.errors import DataError
from promptecho.files import read_jsonl

CaptionImage = listing.ImageEntry[CaptionPrompt]


class CaptionsLayout(listing.ListedLayout):
    """`Layout` of captions."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        read = read_prompts(prompts)
        super().__init__(root, images_per_prompt, [asdict(prompt) for prompt in read])
        self.ids = [prompt.data_id for prompt in read]
        self.texts = [prompt.caption for prompt in read]
        self.chosen = first_places(read, tag_of, limit)


def tag_of(prompt: CaptionPrompt) -> str:
    """By what a limit is stratified: what a caption of shapes claims; other captions have no tags."""
    from promptecho.benchmarks.captions.rules import OTHER, claim_of, group_of

    try:
        return group_of(claim_of(prompt.caption))
    except DataError:
        return OTHER


def list_images(
    root: str | Path, prompts: list[CaptionPrompt] | None = None, images_per_prompt: int | None = None,
    only: list[CaptionPrompt] | None = None,
) -> list[CaptionImage]:  # fmt: skip
    """All images of a folder, see `listing.list_images`; found by their captions where its lines have an `index`."""
    if prompts is not None and _has_index(Path(root)):
        return _by_caption(root, prompts, images_per_prompt, only)
    return listing.list_images(
        root, _read_prompt, prompts, images_per_prompt, shown=lambda prompt: prompt.caption, only=only
    )


def _has_index(root: Path) -> bool:
    path = root / METADATA
    rows = read_jsonl(path) if path.is_file() else []
    return bool(rows) and all("index" in row and "data_id" not in row for row in rows)


def _by_caption(
    root: str | Path, prompts: list[CaptionPrompt], images_per_prompt: int | None, only: list[CaptionPrompt] | None
) -> list[CaptionImage]:
    """The images in the order of `prompts`, each named after the prompt with its caption (white space aside)."""
    named: dict[str, list[CaptionPrompt]] = {}
    for prompt in prompts:
        named.setdefault(" ".join(prompt.caption.split()), []).append(prompt)
    seen: dict[str, dict[str, int]] = {}  # caption -> the indices that have it, in the order of the file

    def read(row: dict, where: str) -> CaptionPrompt:
        found = _read_prompt(row, where)
        text = " ".join(found.caption.split())
        if text not in named:
            raise DataError(
                f"{where} (index {found.data_id}): no prompt of the prompt set has its caption "
                f"({found.caption[:60]!r}); give the prompts that these images were made from"
            )
        place = seen.setdefault(text, {}).setdefault(found.data_id, len(seen[text]))
        return named[text][place % len(named[text])]

    entries = listing.list_images(root, read, None, images_per_prompt, shown=lambda prompt: prompt.caption)
    made, wanted = {entry.prompt for entry in entries}, prompts if only is None else only
    if missing := [prompt.data_id for prompt in wanted if prompt not in made]:
        raise DataError(
            f"{Path(root) / METADATA}: no image of {len(missing)} of the {len(wanted)} prompts of the prompt set, "
            f"e.g. {missing[0]!r}; generate them, or give the prompts that these images were made from"
        )
    order = {prompt.data_id: place for place, prompt in enumerate(wanted)}
    entries = [entry for entry in entries if entry.prompt.data_id in order]
    return sorted(entries, key=lambda entry: (order[entry.prompt.data_id], entry.image_index))


def _read_prompt(row: dict, where: str) -> CaptionPrompt:
    key = "index" if "data_id" not in row and "index" in row else "data_id"
    data_id = listing.read_id(row.get(key), where, key)
    return CaptionPrompt(data_id, listing.read_text(row, "caption", f"{where} ({key} {data_id!r})"))
