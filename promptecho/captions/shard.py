"""Caption one shard of the images, resumable at any moment.

Finished batches go to a synced journal; the HDF5 file is written once at the end. Batches are fixed slices of the
shard's list, so that a shard that was killed and started again ends with the same bytes as an uninterrupted one
(same batch size, thread count and kind of machine).
"""

from __future__ import annotations

import glob
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptecho.captions.captioner import GenerationSettings, caption_images
from promptecho.captions.inputs import ImageItem, ImageList, image_list, look_at, shard_of
from promptecho.captions.journal import Journal
from promptecho.captions.store import (
    CaptionRow,
    CaptionSource,
    DamagedCaptions,
    read_captions,
    row_to_dict,
    write_captions,
)
from promptecho.config.models import DEFAULT_MAX_PIXELS
from promptecho.errors import DataError
from promptecho.files import atomic_path, copy_file, digest
from promptecho.images import load_image
from promptecho.memory import in_phase
from promptecho.names import shown
from promptecho.phases import Phase
from promptecho.progress import progress
from promptecho.vlm import Vlm, load_vlm, model_revision

MAX_ASPECT_RATIO = 200  # what the Qwen-VL image processors take


@dataclass(frozen=True)
class ShardSpec:
    """Which shard of which images is captioned how, and where to."""

    vlm: str
    images: str
    query: str
    shard: int
    num_shards: int
    out: Path
    work: Path
    settings: GenerationSettings
    device: str = "cpu"
    revision: str | None = None
    trust_remote_code: bool = False
    images_list: Path | None = None  # what `renewal.py` wrote for `images`, where it did
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    background: str = "white"
    earlier: str | None = None  # pattern of finished shards that were set aside; one that fits is taken

    def items(self) -> list[ImageItem]:
        """The images of the shard."""
        return shard_of(listed_images(self.images, self.images_list).items, self.shard, self.num_shards)

    def identity(self) -> dict[str, Any]:
        """What decides a caption beside model, question and image; keys that are younger than captions that exist are
        left out at their defaults."""
        young = {"max_pixels": (self.max_pixels, DEFAULT_MAX_PIXELS), "background": (self.background, "white")}
        return self.settings.identity() | {key: value for key, (value, default) in young.items() if value != default}


def caption_shard(spec: ShardSpec) -> dict[str, Any]:
    """Caption a shard into `spec.out`; the journal lies in `spec.work` until the file is complete.

    Returns:
        {"out", "captions", "rejected": {reason: count}}

    Raises:
        DataError, ModelError: bad input, foreign or damaged journal, full disk; finished batches stay in the journal.
    """
    items = spec.items()
    source = CaptionSource(spec.vlm, model_revision(spec.vlm, spec.revision), spec.query, spec.identity())
    journal_path = spec.work / f"{spec.out.stem}.journal.jsonl"
    if (rows := _complete_rows(spec, source, items)) is not None:
        journal_path.unlink(missing_ok=True)  # killed between the two
        return _summary(spec, rows)
    _refuse_changed(spec, items)
    done_to: Counter[str] = Counter()
    header = {
        "journal": 1,
        "vlm_revision": source.vlm_revision,
        "query": source.query,
        "generation": source.generation,
        "shard": f"{spec.shard}/{spec.num_shards}",
        "images": digest([[item.image_id, _size(item.path)] for item in items]),
    }
    with Journal(journal_path, header) as journal:
        done = _finished_rows(journal, items)
        if len(done) < len(items):
            with in_phase(Phase.LOAD_VLM):
                vlm = load_vlm(
                    spec.vlm,
                    dtype=spec.settings.dtype,
                    device=spec.device,
                    revision=spec.revision,
                    trust_remote_code=spec.trust_remote_code,
                )
            _caption_missing(vlm, items, done, journal, spec, done_to)
        rows = [done[item.image_id] for item in items]
        write_captions(spec.out, source, rows, shard=(spec.shard, spec.num_shards))
        journal.remove()
    if done_to:
        told = ", ".join(f"{count} {what}" for what, count in sorted(done_to.items()))
        print(f"{spec.out}: of the images that were read now, these were converted: {told}", file=sys.stderr)
    return _summary(spec, rows) | {"converted": dict(sorted(done_to.items()))}


def _refuse_changed(spec: ShardSpec, items: Sequence[ImageItem]) -> None:
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
        elif (now.size, now.mtime_ns) != (item.size, item.mtime_ns) and _sha256(item.path) != item.sha256:
            problems.append(f"{shown(item.path)} has changed")
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(
            f"{spec.images_list or spec.images}: since the images were listed {', '.join(problems[:10])}{more}; "
            "run the workflow again (it lists them anew), or list them again with `promptecho caption list`"
        )


def _summary(spec: ShardSpec, rows: Sequence[CaptionRow]) -> dict[str, Any]:
    reasons = Counter(row.rejected for row in rows if row.rejected is not None)
    return {"out": str(spec.out), "captions": len(rows) - reasons.total(), "rejected": dict(sorted(reasons.items()))}


def _complete_rows(spec: ShardSpec, source: CaptionSource, items: Sequence[ImageItem]) -> list[CaptionRow] | None:
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
    if file.source != source or file.shard != (spec.shard, spec.num_shards):
        return None
    if [row.image_id for row in file.rows] != [item.image_id for item in items]:
        return None
    same = all(row.image_sha256 == _sha256(item.path) for row, item in zip(file.rows, items, strict=True))
    return file.rows if same else None


def _finished_rows(journal: Journal, items: Sequence[ImageItem]) -> dict[str, CaptionRow]:
    """Rows of the journal by image id, without those of files that were replaced since; these get another row."""
    known = {item.image_id: item.path for item in items}
    done: dict[str, CaptionRow] = {}
    for number, values in enumerate(journal.rows, start=2):
        try:
            row = CaptionRow(**values)
        except TypeError:
            row = None
        before = done.get(row.image_id) if row is not None else None
        if row is None or row.image_id not in known or (before and before.image_sha256 == row.image_sha256):
            raise DataError(f"{journal.path}:{number}: not a row of this shard; delete the journal to start over")
        done[row.image_id] = row
    return {name: row for name, row in done.items() if _sha256(known[name]) == row.image_sha256}


def listed_images(images: str | Path, images_list: Path | None) -> ImageList:
    """The list in the file `images_list`, where it is there and of `images`; else what `images` holds now."""
    if images_list is not None and images_list.is_file():
        listed = image_list(images_list)
        if listed.source == str(images):
            return listed
    return image_list(images)


def _caption_missing(
    vlm: Vlm,
    items: Sequence[ImageItem],
    done: dict[str, CaptionRow],
    journal: Journal,
    spec: ShardSpec,
    done_to: Counter[str],
) -> None:
    size = spec.settings.batch_size
    with progress(f"caption shard {spec.shard + 1}/{spec.num_shards}", len(items), "images", done=len(done)) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            missing = {item.image_id for item in batch} - done.keys()
            if not missing:
                continue
            # The whole batch even if a part is there: a smaller batch could differ in the last bits.
            rows = [row for row in _caption_batch(vlm, batch, spec, done_to) if row.image_id in missing]
            journal.append([row_to_dict(row) for row in rows])
            done.update((row.image_id, row) for row in rows)
            bar.advance(len(rows))


def _caption_batch(vlm: Vlm, batch: Sequence[ImageItem], spec: ShardSpec, done_to: Counter[str]) -> list[CaptionRow]:
    rows: dict[str, CaptionRow] = {}
    usable, images, hashes = [], [], {}
    for item in batch:
        hashes[item.image_id] = _sha256(item.path)
        if item.sha256 not in (None, hashes[item.image_id]):
            _refuse_changed(spec, [replace(item, mtime_ns=0)])
        try:
            image = load_image(item.path, background=spec.background, max_pixels=spec.max_pixels)
        except DataError as error:
            rows[item.image_id] = _reject(item, "unreadable_image", str(error), hashes)
            continue
        if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
            reason = f"{item.path}: {image.width}x{image.height} pixels is too narrow a strip to caption"
            rows[item.image_id] = _reject(item, "aspect_ratio", reason, hashes)
            continue
        done_to.update(image.info["done"])
        usable.append(item)
        images.append(image)
    answers = caption_images(vlm, images, [i.image_id for i in usable], spec.query, spec.settings) if usable else []
    for item, answer in zip(usable, answers, strict=True):
        if not answer.text:
            rows[item.image_id] = _reject(item, "empty", f"{item.path}: the model wrote an empty caption", hashes)
        else:
            rows[item.image_id] = CaptionRow(
                item.image_id, answer.text, answer.n_tokens, answer.finish_reason, hashes[item.image_id]
            )
    return [rows[item.image_id] for item in batch]


def _reject(item: ImageItem, reason: str, message: str, hashes: dict[str, str]) -> CaptionRow:
    print(f"rejected: {message}", file=sys.stderr, flush=True)
    return CaptionRow(item.image_id, "", 0, f"rejected:{reason}", hashes[item.image_id])


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(path: Path) -> str:
    """Hash of a file's bytes; empty if it cannot be read (the row is rejected then)."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
