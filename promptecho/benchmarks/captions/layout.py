"""DenseAlignBench's image folder: images beside a metadata.jsonl of {data_id, caption, filename}, one line an image.

Where a prompt has several images its id is on as many lines, in the order of the images; the authors' evaluator, which
expects one, then takes the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from promptecho.benchmarks.captions.prompts import Prompt, read_prompts
from promptecho.benchmarks.layout import refuse_missing
from promptecho.errors import DataError
from promptecho.files import read_jsonl, write_jsonl

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class ImageEntry:
    """One image to judge."""

    prompt: Prompt
    image_index: int
    path: Path


class CaptionsLayout:
    """`Layout` of captions. An image is named after its prompt's place in the prompt set, never after the data_id,
    which may be a path."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int):
        self._root, self._images_per_prompt = root, images_per_prompt
        self._prompts = read_prompts(prompts)
        self.ids = [prompt.data_id for prompt in self._prompts]
        self.texts = [prompt.caption for prompt in self._prompts]

    def image_path(self, p: int, i: int) -> Path:
        return self._root / f"{p:05}_{i:05}.png"

    def _rows(self) -> list[dict[str, str]]:
        return [
            {**asdict(prompt), "filename": self.image_path(p, i).name}
            for p, prompt in enumerate(self._prompts)
            for i in range(self._images_per_prompt)
        ]

    def _is_whole(self) -> bool:
        return all((self._root / row["filename"]).is_file() for row in self._rows())

    def remove_stale(self) -> None:
        wanted = {row["filename"] for row in self._rows()}
        for image in self._root.glob("[0-9]*_[0-9]*.png"):
            if image.name not in wanted:
                image.unlink(missing_ok=True)
        # A listing that exists is true: one of other prompts, or with images yet to come, goes.
        listing = self._root / METADATA
        if listing.is_file() and not (self._is_whole() and read_jsonl(listing) == self._rows()):
            listing.unlink(missing_ok=True)

    def describe(self, prompts: Sequence[int]) -> None:
        if self._is_whole():  # the last shard to finish sees that, however many run at once
            write_jsonl(self._root / METADATA, self._rows())


def list_images(
    root: str | Path, prompts: list[Prompt] | None = None, images_per_prompt: int | None = None
) -> list[ImageEntry]:
    """All images that a folder's metadata.jsonl lists, in its order.

    Missing images would silently leave the denominator of every score, so the folder must be whole: with `prompts`,
    exactly theirs in their order; `images_per_prompt` of each, or as many as any prompt has.

    Raises:
        DataError: the folder, its metadata or images are missing (named), a line is faulty, or the prompts are others.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder; generate the images first")
    if not (root / METADATA).is_file():
        raise DataError(f"{root / METADATA}: no such file, so the images are not complete; generate them (all shards)")
    entries: list[ImageEntry] = []
    counts: Counter[str] = Counter()
    for number, row in enumerate(read_jsonl(root / METADATA), start=1):
        prompt, path = _read_row(row, root, f"{root / METADATA}: image {number}")
        entries.append(ImageEntry(prompt, counts[prompt.data_id], path))
        counts[prompt.data_id] += 1
    if not entries:
        raise DataError(f"{root / METADATA}: lists no images; generate the images first")
    found = list(dict.fromkeys(entry.prompt for entry in entries))
    expected = prompts if prompts is not None else found
    if len({prompt.data_id for prompt in found}) < len(found) or found != expected:
        other = next((f for f, e in zip(found, expected, strict=False) if f != e), found[-1])
        raise DataError(
            f"{root / METADATA}: its {len(found)} prompts are not the {len(expected)} of the prompt set, e.g. "
            f"{other.data_id!r} ({other.caption!r}); generate the images again"
        )
    wanted = images_per_prompt or max(counts.values())
    if odd := [name for name, count in counts.items() if count != wanted]:
        raise DataError(
            f"{root / METADATA}: {counts[odd[0]]} images of prompt {odd[0]!r}, not {wanted}; generate the images again"
        )
    missing = [str(entry.path.relative_to(root)) for entry in entries if not entry.path.is_file()]
    refuse_missing(root, missing, len(entries))
    return entries


def _read_row(row: dict, root: Path, where: str) -> tuple[Prompt, Path]:
    data_id, caption, filename = (row.get(key) for key in ("data_id", "caption", "filename"))
    if not isinstance(data_id, str | int) or isinstance(data_id, bool) or str(data_id) == "":
        raise DataError(f"{where}: data_id {data_id!r} is no id; expected {{data_id, caption, filename}}")
    for key, text in (("caption", caption), ("filename", filename)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where} (data_id {data_id!r}): {key} is missing or empty")
    relative = PurePosixPath(filename)
    if relative.is_absolute() or ".." in relative.parts or "\0" in filename:
        raise DataError(f"{where} (data_id {data_id!r}): filename {filename!r} leaves the folder; correct it")
    return Prompt(str(data_id), caption.strip()), root / relative
