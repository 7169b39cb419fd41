"""What a shard starts from: whether it is finished already, whether its images are those that were listed, and which of
them can be captioned at all. Nothing here imports torch."""

from __future__ import annotations

import glob
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from promptecho.captions.inputs import ImageItem, look_at
from promptecho.captions.shard_spec import ShardSpec
from promptecho.captions.store import CaptionRow, CaptionSource, DamagedCaptions, read_captions
from promptecho.errors import DataError
from promptecho.files import atomic_path, copy_file
from promptecho.images import load_image
from promptecho.names import shown

MAX_ASPECT_RATIO = 200  # what the Qwen-VL image processors take
ANSWERED_BY = "answered_by"  # in `generation`: what a server called the model in its answers
AS_SERVED = "as served"  # in place of a revision, of weights that only the server knows


class UnfitImageError(DataError):
    """An image that gets no caption; `reason` is the word for it in the shard's file."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def fit_image(item: ImageItem, background: str, max_pixels: int | None) -> Image.Image:
    """The image as the VLM is to see it (docs/images.md).

    Raises:
        UnfitImageError: it cannot be read, or is too narrow a strip.
    """
    try:
        image = load_image(item.path, background=background, max_pixels=max_pixels)
    except DataError as error:
        raise UnfitImageError("unreadable_image", str(error)) from None
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        told = f"{item.path}: {image.width}x{image.height} pixels is too narrow a strip to caption"
        raise UnfitImageError("aspect_ratio", told)
    return image


def rejected_row(item: ImageItem, reason: str, message: str, sha256: str) -> CaptionRow:
    """The row of an image without a caption, which is told with `message`."""
    print(f"rejected: {message}", file=sys.stderr, flush=True)
    return CaptionRow(item.image_id, "", 0, f"rejected:{reason}", sha256)


def refuse_changed(spec: ShardSpec, items: Sequence[ImageItem]) -> None:
    """Compare the files with what the list says of them: what it lists is what is captioned.

    Raises:
        DataError: images are gone, or others now; all are named.
    """
    problems = []
    for item, now in zip(items, look_at(items), strict=True):
        if item.size is None:
            continue  # was not there, or not looked at, when it was listed
        if now.size is None:
            problems.append(f"{shown(item.path)} is gone")
        elif (now.size, now.mtime_ns) != (item.size, item.mtime_ns) and sha256_of(item.path) != item.sha256:
            problems.append(f"{shown(item.path)} has changed")
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(
            f"{spec.images_list or spec.images}: since the images were listed {', '.join(problems[:10])}{more}; "
            "run the workflow again (it lists them anew), or list them again with `promptecho caption list`"
        )


def refuse_another_content(spec: ShardSpec, item: ImageItem, sha256: str) -> None:
    """Look at the content of a file that was just read, where the list knows one.

    Raises:
        DataError: it is another.
    """
    if item.sha256 not in (None, sha256):
        refuse_changed(spec, [replace(item, mtime_ns=0)])


def summary(spec: ShardSpec, rows: Sequence[CaptionRow], done_to: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What the command says of a shard; `done_to`: what was done to images that were read now."""
    reasons = Counter(row.rejected for row in rows if row.rejected is not None)
    told = {"out": str(spec.out), "captions": len(rows) - reasons.total(), "rejected": dict(sorted(reasons.items()))}
    if done_to:
        words = ", ".join(f"{count} {what}" for what, count in sorted(done_to.items()))
        print(f"{spec.out}: of the images that were read now, these were converted: {words}", file=sys.stderr)
    return told if done_to is None else told | {"converted": dict(sorted(done_to.items()))}


def complete_rows(spec: ShardSpec, source: CaptionSource, items: Sequence[ImageItem]) -> list[CaptionRow] | None:
    """The rows of `spec.out` if it already is what would be written, or of a file of `spec.earlier` that is, which
    then becomes `spec.out`: same source, same images by hash."""
    if (rows := _fitting_rows(spec.out, spec, source, items)) is not None:
        print(f"{spec.out}: already complete", file=sys.stderr)
        return rows
    for path in sorted(map(Path, glob.glob(spec.earlier))) if spec.earlier else ():
        if (rows := _fitting_rows(path, spec, source, items)) is not None:
            with atomic_path(spec.out) as temporary:
                copy_file(path, temporary, spec.out)
            print(f"{spec.out}: taken from {path}", file=sys.stderr)
            return rows
    return None


def _fitting_rows(
    path: Path, spec: ShardSpec, source: CaptionSource, items: Sequence[ImageItem]
) -> list[CaptionRow] | None:
    try:
        file = read_captions(path)
    except DamagedCaptions as error:
        print(f"{error}; it is not used", file=sys.stderr)
        return None
    except DataError:
        if path.exists():  # it cannot be read now, which says nothing about its content
            raise
        return None
    if as_asked(file.source) != source or file.shard != (spec.shard, spec.num_shards):
        return None
    if [row.image_id for row in file.rows] != [item.image_id for item in items]:
        return None
    same = all(row.image_sha256 == sha256_of(item.path) for row, item in zip(file.rows, items, strict=True))
    return file.rows if same else None


def as_asked(source: CaptionSource) -> CaptionSource:
    """A file's source without what only its answers have told."""
    return replace(source, generation={key: one for key, one in source.generation.items() if key != ANSWERED_BY})


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes; empty if it cannot be read (the row is rejected then)."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
