"""Caption one shard of the images, resumable at any moment.

Finished batches go to a synced journal; the HDF5 file is written once at the end. Batches are fixed slices of the
shard's list, so that a shard that was killed and started again ends with the same bytes as an uninterrupted one
(same batch size, thread count and kind of machine).
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.captions.captioner import GenerationSettings, caption_images
from promptecho.captions.inputs import ImageItem, list_images, shard_of
from promptecho.captions.journal import Journal
from promptecho.captions.store import CaptionRow, CaptionSource, read_captions, row_to_dict, write_captions
from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.images import load_image
from promptecho.memory import in_phase
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


def caption_shard(spec: ShardSpec) -> dict[str, Any]:
    """Caption a shard into `spec.out`; the journal lies in `spec.work` until the file is complete.

    Returns:
        {"out", "captions", "rejected": {reason: count}}

    Raises:
        DataError, ModelError: bad input, foreign or damaged journal, full disk; finished batches stay in the journal.
    """
    items = shard_of(list_images(spec.images), spec.shard, spec.num_shards)
    source = CaptionSource(
        spec.vlm, model_revision(spec.vlm, spec.revision), spec.query, spec.settings.identity()
    )
    journal_path = spec.work / f"{spec.out.stem}.journal.jsonl"
    if (rows := _complete_rows(spec, source, items)) is not None:
        print(f"{spec.out}: already complete", file=sys.stderr)
        journal_path.unlink(missing_ok=True)  # killed between the two
        return _summary(spec, rows)
    header = {
        "journal": 1, "vlm_revision": source.vlm_revision, "query": source.query, "generation": source.generation,
        "shard": f"{spec.shard}/{spec.num_shards}",
        "images": digest([[item.image_id, _size(item.path)] for item in items]),
    }
    with Journal(journal_path, header) as journal:
        done = _finished_rows(journal, items)
        if len(done) < len(items):
            with in_phase("load_vlm"):
                vlm = load_vlm(
                    spec.vlm, dtype=spec.settings.dtype, device=spec.device, revision=spec.revision,
                    trust_remote_code=spec.trust_remote_code,
                )
            _caption_missing(vlm, items, done, journal, spec)
        rows = [done[item.image_id] for item in items]
        write_captions(spec.out, source, rows, shard=(spec.shard, spec.num_shards))
        journal.remove()
    return _summary(spec, rows)


def _summary(spec: ShardSpec, rows: Sequence[CaptionRow]) -> dict[str, Any]:
    reasons = Counter(row.rejected for row in rows if row.rejected is not None)
    return {"out": str(spec.out), "captions": len(rows) - reasons.total(), "rejected": dict(sorted(reasons.items()))}


def _complete_rows(spec: ShardSpec, source: CaptionSource, items: Sequence[ImageItem]) -> list[CaptionRow] | None:
    """The rows of `spec.out` if it already is what would be written: same source, same images by hash."""
    try:
        file = read_captions(spec.out)
    except DataError:
        return None  # missing or damaged: made anew
    if file.source != source or file.shard != (spec.shard, spec.num_shards):
        return None
    if [row.image_id for row in file.rows] != [item.image_id for item in items]:
        return None
    same = all(row.image_sha256 == _sha256(item.path) for row, item in zip(file.rows, items, strict=True))
    return file.rows if same else None


def _finished_rows(journal: Journal, items: Sequence[ImageItem]) -> dict[str, CaptionRow]:
    known = {item.image_id for item in items}
    done: dict[str, CaptionRow] = {}
    for number, values in enumerate(journal.rows, start=2):
        try:
            row = CaptionRow(**values)
        except TypeError:
            row = None
        if row is None or row.image_id not in known or row.image_id in done:
            raise DataError(f"{journal.path}:{number}: not a row of this shard; delete the journal to start over")
        done[row.image_id] = row
    return done


def _caption_missing(
    vlm: Vlm, items: Sequence[ImageItem], done: dict[str, CaptionRow], journal: Journal, spec: ShardSpec
) -> None:
    size = spec.settings.batch_size
    with progress(f"caption shard {spec.shard + 1}/{spec.num_shards}", len(items), "images", done=len(done)) as bar:
        for start in range(0, len(items), size):
            batch = items[start:start + size]
            missing = {item.image_id for item in batch} - done.keys()
            if not missing:
                continue
            # The whole batch even if a part is there: a smaller batch could differ in the last bits.
            rows = [row for row in _caption_batch(vlm, batch, spec) if row.image_id in missing]
            journal.append([row_to_dict(row) for row in rows])
            done.update((row.image_id, row) for row in rows)
            bar.advance(len(rows))


def _caption_batch(vlm: Vlm, batch: Sequence[ImageItem], spec: ShardSpec) -> list[CaptionRow]:
    rows: dict[str, CaptionRow] = {}
    usable, images, hashes = [], [], {}
    for item in batch:
        hashes[item.image_id] = _sha256(item.path)
        try:
            image = load_image(item.path)
        except DataError as error:
            rows[item.image_id] = _reject(item, "unreadable_image", str(error), hashes)
            continue
        if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
            reason = f"{item.path}: {image.width}x{image.height} pixels is too narrow a strip to caption"
            rows[item.image_id] = _reject(item, "aspect_ratio", reason, hashes)
            continue
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
