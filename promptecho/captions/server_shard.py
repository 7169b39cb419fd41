"""Caption one shard of the images through a server, resumable at any moment.

What shard.py does with transformers in the process, with the same rows and the same file. Every answer is in a journal
of the judges' kind (judges/record.py) when it counts, so that a shard that was killed asks for nothing twice that was
answered. Its bytes are those of the answers: the same settings may bring other ones, as servers put requests together
as they come.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from promptecho.captions.inputs import ImageItem
from promptecho.captions.server import SERVER, WORDING, ServerCaptioner, caption_server
from promptecho.captions.shard_spec import ShardSpec
from promptecho.captions.shard_state import (
    ANSWERED_BY,
    AS_SERVED,
    UnfitImageError,
    complete_rows,
    fit_image,
    refuse_changed,
    rejected_row,
    sha256_of,
    summary,
)
from promptecho.captions.store import CaptionRow, CaptionSource, write_captions
from promptecho.config.caption_server import CaptionServerSection
from promptecho.errors import DataError
from promptecho.judges.ask import sigterm_raises
from promptecho.judges.base import Payload, Question
from promptecho.judges.errors import JudgeError, UnaskableError
from promptecho.judges.patience import Backoff
from promptecho.judges.prepare import MEDIA_TYPES, Prepared
from promptecho.judges.record import Record
from promptecho.judges.workers import Workers
from promptecho.models.revision import model_revision
from promptecho.names import shown
from promptecho.progress import progress
from promptecho.seeds import derive_seed

READERS = 8  # threads that read files at once
UNFIT = ("unreadable_image", "aspect_ratio")
REFUSED = "HTTP 4"  # how the reason begins where the server refused a request
ORIENTATION = 0x0112  # of EXIF


def caption_shard_by_server(spec: ShardSpec) -> dict[str, Any]:
    """Caption a shard into `spec.out`; the journal lies in `spec.work` until the file is complete.

    Returns and raises as `caption_shard`.

    Raises:
        JudgeError: the server does not answer, or refuses key, model or request; what was answered stays.
    """
    assert spec.server is not None
    items = spec.items()
    source = CaptionSource(spec.vlm, _revision(spec, spec.server), spec.query, spec.identity())
    folder = spec.work / f"{spec.out.stem}.server"
    if (rows := complete_rows(spec, source, items)) is not None:
        shutil.rmtree(folder, ignore_errors=True)  # killed between the two
        return summary(spec, rows)
    refuse_changed(spec, items)
    with _alone(folder), Record(folder, SERVER, sync_begun=False) as record:
        asked = AskedImages(spec, source, items, record)
        if missing := asked.missing():
            log = spec.server_log or spec.work / f"{spec.out.stem}.server.log"
            with caption_server(spec, log) as server:
                ask(asked, missing, server, spec)
        rows, models = asked.rows(), asked.answered_by()
        if len(models) > 1 and source.vlm_revision == AS_SERVED:  # a command's weights are known
            raise DataError(
                f"{folder}: several models have answered for this shard ({', '.join(models)}); name one in "
                f"{SERVER}.model, or remove this folder to caption the shard anew with the one that is served now"
            )
        generation = source.generation | {ANSWERED_BY: ", ".join(models)}
        told = CaptionSource(source.vlm, source.vlm_revision, source.query, generation)
        write_captions(spec.out, told, rows, shard=(spec.shard, spec.num_shards))
    shutil.rmtree(folder, ignore_errors=True)
    return summary(spec, rows, asked.done_to)


class AskedImages:
    """The images of a shard as questions, and what the record knows of them. As a `PayloadMaker` it reads an image when
    it is sent."""

    def __init__(self, spec: ShardSpec, source: CaptionSource, items: Sequence[ImageItem], record: Record):
        self.spec, self.items, self.record = spec, items, record
        self.done_to: Counter[str] = Counter()  # what was done to images that were read now
        self.unfit: dict[str, tuple[str, str]] = {}  # key: reason and message
        with ThreadPoolExecutor(READERS) as pool:
            hashes = list(pool.map(_hash, items))
        made = hashlib.sha256(json.dumps(vars(source), sort_keys=True).encode())
        sampled = spec.settings.temperature > 0  # then an image's id chooses its seed
        self.keys = [  # files that cannot be read have no hash to tell them apart
            _key(made, sha256, item.image_id if sampled or not sha256 else "")
            for item, sha256 in zip(items, hashes, strict=True)
        ]
        self._of: dict[str, tuple[ImageItem, str]] = {}  # equal images are one question
        for key, item, sha256 in zip(self.keys, items, hashes, strict=True):
            self._of.setdefault(key, (item, sha256))
        self.hashes = hashes
        self._reading = threading.BoundedSemaphore(min(READERS, len(os.sched_getaffinity(0))))
        self._read: set[str] = set()  # keys
        self._lock = threading.Lock()

    def missing(self) -> list[Prepared]:
        """The images without an answer, as questions, each once."""
        return [
            Prepared(Question(item.image_id, self.spec.query, (), str), key, (), (), 0)
            for key, (item, _) in self._of.items()
            if not self.record.replies(key)  # what was given up, too: the settings or the server may be others now
        ]

    def payload(self, prepared: Prepared, attempt: int) -> Payload:
        """See `PayloadMaker`."""
        item, sha256 = self._of[prepared.key]
        with self._reading:  # decoded photographs are large
            try:
                image = fit_image(item, self.spec.background, self.spec.max_pixels)
            except UnfitImageError as error:
                self.unfit[prepared.key] = error.reason, str(error)
                raise UnaskableError(str(error)) from None
            sent = _encoded(item, image, sha256)
        with self._lock:
            if prepared.key not in self._read:
                self.done_to.update(image.info["done"])
                self._read.add(prepared.key)
        seed = derive_seed(self.spec.settings.seed, "caption", item.image_id) >> 32  # 31 bits: all servers take these
        return Payload("", self.spec.query, (sent,), None, self.spec.settings.temperature, seed)

    def rows(self) -> list[CaptionRow]:
        """A row for each image, once none is missing."""
        return [
            self._row(item, key, sha256) for item, key, sha256 in zip(self.items, self.keys, self.hashes, strict=True)
        ]

    def answered_by(self) -> list[str]:
        """What the server called the model; several where it was exchanged. Of a folder the last part: on another
        node's disk it has another path."""
        said = {row.model_version for key in self._of for row in self.record.replies(key)[:1]} - {""}
        return sorted({Path(name).name if Path(name).is_absolute() else name for name in said})

    def _row(self, item: ImageItem, key: str, sha256: str) -> CaptionRow:
        if key in self.unfit:
            return rejected_row(item, *self.unfit[key], sha256)
        replies = self.record.replies(key)
        if not replies:
            why = self.record.given_up(key) or ""
            reason = "refused" if why.startswith(REFUSED) else "server_error"
            return rejected_row(item, reason, f"{shown(item.path)}: no caption: {why}", sha256)
        reply = replies[0]
        if reply.status == "refused":
            told = f"{shown(item.path)}: the model declined: {reply.reason}"
            return rejected_row(item, "refused", told, sha256)
        # As with transformers in the process: HDF5 texts end at a NUL.
        text, n_tokens = reply.text.replace("\0", "").strip(), -1 if reply.estimated else reply.output_tokens
        if not text:
            cut = ", and its max_new_tokens were spent on something else" if reply.finish == "length" else ""
            return rejected_row(item, "empty", f"{shown(item.path)}: the model wrote an empty caption{cut}", sha256)
        return CaptionRow(item.image_id, text, n_tokens, "length" if reply.finish == "length" else "stop", sha256)


def ask(asked: AskedImages, missing: list[Prepared], server: ServerCaptioner, spec: ShardSpec) -> None:
    """Ask for all captions that are missing.

    Raises:
        JudgeError: the server was away for too long, or asking would be of no use.
    """
    assert spec.server is not None
    record, total = asked.record, len(asked.items)
    workers = Workers(
        server.inner.settings, server, record, asked, lambda one: bool(record.replies(one.key)),
        Backoff(outage_s=spec.server.outage_s), WORDING, paid=False,
    )  # fmt: skip
    bar = progress(f"caption shard {spec.shard + 1}/{spec.num_shards}", total, "images", total - len(missing))
    before, begin = record.output_tokens, time.monotonic()
    refused: list[str] = []
    other = False  # something was asked and not refused
    with bar as counter, sigterm_raises(), workers.running(missing):
        for done, (one, failure) in enumerate(workers.outcomes(), start=1):
            rate = (record.output_tokens - before) / max(time.monotonic() - begin, 1e-9)
            counter.advance(note=f"{rate:.0f} tokens/s")
            if one.key in asked.unfit:
                continue
            if failure is None:
                other = True
                continue
            if failure.startswith("outage"):
                there = total - len(missing) + done - 1
                raise JudgeError(
                    f"{SERVER}: {failure}; {there} of {total} images are captioned, and stay: see to the server, then "
                    "rerun to go on"
                )
            record.give_up(one.key, one.question.id, failure)
            if failure.startswith(REFUSED):
                refused.append(failure)
            else:
                other = True
    if refused and not other and not record.all_replies():  # of fewer images than `Workers` takes for enough
        raise JudgeError(
            f"{SERVER}: {refused[0]}; all {len(refused)} images that were asked about were refused: correct {SERVER}"
        )


def _revision(spec: ShardSpec, server: CaptionServerSection) -> str:
    """Which weights caption: those that a command is given are known."""
    if server.endpoint is not None:
        return AS_SERVED
    return model_revision(spec.vlm, spec.revision)


def _key(made: Any, *parts: str) -> str:
    """SHA-256 of everything that decides a caption."""
    hasher = made.copy()
    hasher.update(json.dumps(parts).encode())
    return hasher.hexdigest()


def _hash(item: ImageItem) -> str:
    """Hash of an image's file; the list's, where it has one, which was compared with the file before."""
    return item.sha256 if item.size is not None and item.sha256 is not None else sha256_of(item.path)


def _encoded(item: ImageItem, image: Image.Image, sha256: str) -> tuple[str, bytes]:
    """(media type, bytes) of an image as it is sent: the file itself where a server's decoder sees the same in it.

    Raises:
        DataError: the file is another one than before, or gone.
    """
    try:
        data = item.path.read_bytes()
    except OSError as error:
        told = f"{shown(item.path)}: cannot be read any more ({error.strerror or error}); run the workflow again"
        raise DataError(told) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{shown(item.path)}: changed while it was captioned; run the workflow again")
    with Image.open(io.BytesIO(data)) as opened:
        plain = opened.mode == "RGB" and opened.size == image.size and opened.getexif().get(ORIENTATION, 1) == 1
        if plain and not image.info["done"] and opened.format in MEDIA_TYPES:
            return MEDIA_TYPES[opened.format], data
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return MEDIA_TYPES["PNG"], buffer.getvalue()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process works on this shard meanwhile.

    Raises:
        DataError: another one does, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder / ".shard", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"{folder}: cannot write ({error.strerror or error}); allow it") from None
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{folder}: another process is working on it; wait for it or stop it") from None
        yield
    finally:
        os.close(held)
