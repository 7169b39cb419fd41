"""Image folders that list themselves: images beside a metadata.jsonl, one line an image.

Where a prompt has several images its id is on as many lines, in the order of the images; an evaluator that expects one
then takes the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, TypeVar

from promptecho.archives import ImageFile, ImageStore
from promptecho.benchmarks.layout import missing_images, refuse_missing, refuse_mixed_sizes
from promptecho.errors import DataError
from promptecho.files import digest, read_jsonl, write_jsonl
from promptecho.text_files import read_rows

METADATA = "metadata.jsonl"


class ListedPrompt(Protocol):
    """A prompt of a listing: hashable, comparable, and named by `data_id`."""

    @property
    def data_id(self) -> str: ...


P = TypeVar("P", bound=ListedPrompt)


def read_prompts(path: str | Path, read: Callable[[dict, str], P]) -> list[P]:
    """Read a prompt set, a row a prompt (JSON Lines, CSV, ...).

    Args:
        read: makes the prompt of a row; gets the row and how to name it in an error.

    Raises:
        DataError: the file is missing, empty or faulty (names the prompt), or an id occurs twice.
    """
    prompts: dict[str, P] = {}
    for number, (_, row) in enumerate(read_rows(path), start=1):
        prompt = read(row, f"{path}: prompt {number}")
        if prompt.data_id in prompts:
            raise DataError(
                f"{path}: prompt {number} (data_id {prompt.data_id!r}): the id occurs twice; make ids unique"
            )
        prompts[prompt.data_id] = prompt
    if not prompts:
        raise DataError(f"{path}: holds no prompts; write one JSON object a line")
    return list(prompts.values())


def read_numbered(path: str | Path, parse: Callable[[dict[str, Any], str, str], P]) -> list[P]:
    """Read a prompt set without ids by `parse(row, where, id)`; a prompt's id is its place in the file, from 00000.

    Raises:
        DataError: the file is missing, empty or a line is malformed (names file:line).
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: no prompts in it; write one JSON object a line")
    return [parse(row, f"{path}:{line}", f"{place:05}") for place, (line, row) in enumerate(rows)]


def listed_prompt(parse: Callable[[dict[str, Any], str, str], P], row: dict[str, Any], where: str) -> P:
    """A line beside images of such a set, which has the id, as its prompt.

    Raises:
        DataError: as `parse`, or it has no id.
    """
    data_id = read_id(row.get("data_id"), where)
    return parse(row, f"{where} (data_id {data_id!r})", data_id)


def prompts_digest(prompts: Sequence[Any]) -> str:
    """Digest of prompts, which are dataclasses: two score files with equal digests judge the same prompts in the same
    order."""
    return digest([asdict(prompt) for prompt in prompts])


@dataclass(frozen=True)
class ImageEntry(Generic[P]):
    """One image to judge."""

    prompt: P
    image_index: int
    path: ImageFile


class ListedLayout:
    """Base of a `Layout`; the class that builds on it sets `ids`, `texts` and `chosen`.

    `rows[p]` is what the listing says of prompt p, without the file name. An image is named after its prompt's number,
    by default its place in the prompt set, and never after the data_id, which may be a path.
    """

    ids: list[str]
    texts: list[str]
    chosen: list[int]

    def __init__(
        self, root: Path, images_per_prompt: int, rows: list[dict[str, Any]], numbers: Sequence[int] | None = None
    ):
        self._root, self._images_per_prompt = root, images_per_prompt
        self._described, self._numbers = rows, numbers if numbers is not None else range(len(rows))

    def image_path(self, p: int, i: int) -> Path:
        return self._root / f"{self._numbers[p]:05}_{i:05}.png"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {**self._described[p], "filename": self.image_path(p, i).name}
            for p in self.chosen
            for i in range(self._images_per_prompt)
        ]

    def _is_whole(self) -> bool:
        return ImageStore(self._root).has_all(row["filename"] for row in self._rows())

    def remove_stale(self) -> None:
        per_prompt = range(self._images_per_prompt)
        wanted = {self.image_path(p, i).name for p in range(len(self._described)) for i in per_prompt}
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
    root: str | Path,
    read: Callable[[dict, str], P],
    prompts: list[P] | None = None,
    images_per_prompt: int | None = None,
    *,
    shown: Callable[[P], str],
    only: list[P] | None = None,
) -> list[ImageEntry[P]]:
    """All images that a folder's metadata.jsonl lists, in its order.

    Missing images would silently leave the denominator of every score, so the folder must be whole: with `prompts`,
    exactly theirs in their order; `images_per_prompt` of each, or as many as any prompt has.

    Args:
        read: makes the prompt of a line; gets the line and how to name it in an error.
        shown: the text by which an error tells a prompt.
        only: those of `prompts` whose images are wanted; others may be listed or not.

    Raises:
        DataError: the folder, its metadata or images are missing (named), a line is faulty, or the prompts are others.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder; generate the images first")
    store = ImageStore(root)
    if not (root / METADATA).is_file():
        store.names()  # tells of a damaged archive, where that is why there is no listing
        raise DataError(f"{root / METADATA}: no such file, so the images are not complete; generate them (all shards)")
    entries: list[ImageEntry[P]] = []
    counts: Counter[str] = Counter()
    for number, row in enumerate(read_jsonl(root / METADATA), start=1):
        where = f"{root / METADATA}: image {number}"
        prompt = read(row, where)
        name = _image_name(row, f"{where} (data_id {prompt.data_id!r})")
        entries.append(ImageEntry(prompt, counts[prompt.data_id], store.find(name)))
        counts[prompt.data_id] += 1
    if not entries:
        raise DataError(f"{root / METADATA}: lists no images; generate the images first")
    found = list(dict.fromkeys(entry.prompt for entry in entries))
    expected = prompts if prompts is not None else found
    if only is not None:
        # Those of another limit, or of none, are left out; those of another prompt set stay, to be told below.
        wanted, known = {prompt.data_id for prompt in only}, set(expected)
        entries = [entry for entry in entries if entry.prompt.data_id in wanted or entry.prompt not in known]
        found, expected = list(dict.fromkeys(entry.prompt for entry in entries)), only
        counts = Counter(entry.prompt.data_id for entry in entries)
    if len({prompt.data_id for prompt in found}) < len(found) or found != expected:
        other = next((f for f, e in zip(found, expected, strict=False) if f != e), (found or expected)[-1])
        raise DataError(
            f"{root / METADATA}: its {len(found)} prompts are not the {len(expected)} of the prompt set, e.g. "
            f"{other.data_id!r} ({shown(other)!r}); generate the images again"
        )
    each = images_per_prompt or max(counts.values())
    if odd := [name for name, count in counts.items() if count != each]:
        raise DataError(
            f"{root / METADATA}: {counts[odd[0]]} images of prompt {odd[0]!r}, not {each}; generate the images again"
        )
    missing = missing_images(root, (entry.path for entry in entries))
    refuse_missing(root, missing, len(entries))
    refuse_mixed_sizes(root, (entry.path for entry in entries))
    return entries


def read_id(data_id: Any, where: str, key: str = "data_id") -> str:
    """The id of a prompt as text; `key` is what the line calls it.

    Raises:
        DataError: it is neither a number nor a text that can be written.
    """
    if not isinstance(data_id, str | int) or isinstance(data_id, bool) or not str(data_id).strip():
        raise DataError(f"{where}: {key} {data_id!r} is no id; give a text or a number")
    if not is_writable(str(data_id)):
        raise DataError(f"{where}: {key} {ascii(data_id)} is no text; rename it")
    return str(data_id)


def read_text(row: dict, key: str, where: str) -> str:
    """A text of a line, without the white space around it.

    Raises:
        DataError: it is missing, empty, or holds what is no text.
    """
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {key} is missing or empty; fill it in")
    if not is_writable(text):
        raise DataError(f"{where}: {key} holds a NUL or half a character; correct it")
    return text.strip()


def is_writable(text: str) -> bool:
    """Whether a text has a UTF-8 form and no NUL."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def _image_name(row: dict, where: str) -> str:
    read_text(row, "filename", where)
    filename = row["filename"]
    relative = PurePosixPath(filename)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{where}: filename {filename!r} leaves the folder; correct it")
    return str(relative)
