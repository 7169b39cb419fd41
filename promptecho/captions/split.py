"""Split captions into training and held-out ones that share neither an image nor a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from promptecho.captions.store import CaptionRow
from promptecho.errors import DataError, counted


def split_captions(rows: Sequence[CaptionRow], heldout: int, seed: int) -> tuple[list[CaptionRow], list[CaptionRow]]:
    """Return (training rows, exactly `heldout` held-out rows), each in the order of `rows`.

    Distinct captions are put in the order of a hash of `seed` and their image's hash (the smallest, where several
    images have the same caption), so that neither the order of the rows nor how often a caption occurs matters.
    The first of them with images not yet taken are held out, one row each. All other rows with a held-out image or a
    held-out text belong to neither side.

    Raises:
        DataError: too few distinct captions, or nothing is left to train on.
    """
    first: dict[str, CaptionRow] = {}
    for row in rows:
        if row.caption not in first or (row.image_sha256, row.image_id) < (
            first[row.caption].image_sha256,
            first[row.caption].image_id,
        ):
            first[row.caption] = row
    ordered = sorted(first.values(), key=lambda row: (_hash(seed, row.image_sha256), row.image_id))
    chosen: dict[str, CaptionRow] = {}  # by image hash
    for row in ordered:
        if len(chosen) == heldout:
            break
        chosen.setdefault(row.image_sha256, row)
    if len(chosen) < heldout:
        differ = counted(len(chosen), "caption differs", "captions differ")
        raise DataError(f"heldout {heldout}: only {differ} in image and text; hold out fewer")
    texts = {row.caption for row in chosen.values()}
    ids = {row.image_id for row in chosen.values()}
    training = [row for row in rows if row.image_sha256 not in chosen and row.caption not in texts]
    if not training:
        raise DataError(f"heldout {heldout}: no caption is left to train on; hold out fewer or caption more images")
    return training, [row for row in rows if row.image_id in ids]


def _hash(seed: int, image_sha256: str) -> str:
    return hashlib.sha256(f"{seed}:{image_sha256}".encode()).hexdigest()
