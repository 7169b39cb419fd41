"""Caption one shard of the images, resumable at any moment.

Finished batches go to a synced journal; the HDF5 file is written once at the end. Batches are fixed slices of the
shard's list, so that a shard that was killed and started again ends with the same bytes as an uninterrupted one
(same batch size, thread count and kind of machine).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptecho.captions.captioner import caption_images
from promptecho.captions.inputs import ImageItem
from promptecho.captions.journal import Journal
from promptecho.captions.shard_spec import ShardSpec
from promptecho.captions.shard_state import (
    UnfitImageError,
    complete_rows,
    fit_image,
    refuse_another_content,
    refuse_changed,
    rejected_row,
    sha256_of,
    summary,
)
from promptecho.captions.store import CaptionRow, CaptionSource, row_to_dict, write_captions
from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.memory import in_phase
from promptecho.phases import Phase
from promptecho.progress import progress
from promptecho.vlm import Vlm, load_vlm, model_revision


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
    if (rows := complete_rows(spec, source, items)) is not None:
        journal_path.unlink(missing_ok=True)  # killed between the two
        return summary(spec, rows)
    refuse_changed(spec, items)
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
    return summary(spec, rows, done_to)


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
    return {name: row for name, row in done.items() if sha256_of(known[name]) == row.image_sha256}


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
        hashes[item.image_id] = sha256_of(item.path)
        refuse_another_content(spec, item, hashes[item.image_id])
        try:
            image = fit_image(item, spec.background, spec.max_pixels)
        except UnfitImageError as error:
            rows[item.image_id] = rejected_row(item, error.reason, str(error), hashes[item.image_id])
            continue
        done_to.update(image.info["done"])
        usable.append(item)
        images.append(image)
    answers = caption_images(vlm, images, [i.image_id for i in usable], spec.query, spec.settings) if usable else []
    for item, answer in zip(usable, answers, strict=True):
        if not answer.text:
            told = f"{item.path}: the model wrote an empty caption"
            rows[item.image_id] = rejected_row(item, "empty", told, hashes[item.image_id])
        else:
            rows[item.image_id] = CaptionRow(
                item.image_id, answer.text, answer.n_tokens, answer.finish_reason, hashes[item.image_id]
            )
    return [rows[item.image_id] for item in batch]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
