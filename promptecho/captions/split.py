"""Split captions into training and held-out ones that share neither an image nor a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from promptecho.captions.store import CaptionRow
from promptecho.errors import DataError, counted

if TYPE_CHECKING:
    import numpy as np


def split_captions(rows: Sequence[CaptionRow], heldout: int, seed: int) -> tuple[list[CaptionRow], list[CaptionRow]]:
    """Return (training rows, exactly `heldout` held-out rows), each in the order of `rows`; chosen as by `split`.

    Raises:
        DataError: too few distinct captions, or nothing is left to train on.
    """
    images = [row.image_sha256.encode() for row in rows]
    chosen = split(numbered(row.caption for row in rows), images, numbered(row.image_id for row in rows), heldout, seed)
    training, held = ([rows[index] for index in part.tolist()] for part in chosen)
    return training, held


def split(
    texts: np.ndarray, images: Sequence[bytes] | np.ndarray, names: np.ndarray, heldout: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training rows and of exactly `heldout` held-out rows, both upwards.

    Distinct captions are put in the order of a hash of `seed` and their image's hash (the smallest, where several
    images have the same caption), so that neither the order of the rows nor how often a caption occurs matters.
    The first of them with images not yet taken are held out, one row each. All other rows with a held-out image or a
    held-out text belong to neither side.

    Args:
        texts: int [n]; rows of the same caption have the same number.
        images: the hashes of the rows' images, n of them; an array of "S" is not copied.
        names: int [n]; the rows' ids as numbers, which are in the order of the ids.

    Raises:
        DataError: too few distinct captions, or nothing is left to train on.
    """
    import numpy as np

    hashes, image = np.unique(np.asarray(images, dtype="S"), return_inverse=True)
    ordered = np.lexsort((names, image, texts))
    ordered = ordered[_firsts(texts[ordered])]
    turn = np.empty(len(hashes), np.int64)
    turns = bytearray()
    for one in hashes:
        turns += hashlib.sha256(b"%d:%b" % (seed, one)).digest()
    turn[np.argsort(np.frombuffer(turns, "S32"), kind="stable")] = np.arange(len(hashes))
    ordered = ordered[np.lexsort((names[ordered], turn[image[ordered]]))]
    chosen = ordered[_firsts(image[ordered])][:heldout]
    if len(chosen) < heldout:
        differ = counted(len(chosen), "caption differs", "captions differ")
        raise DataError(f"heldout {heldout}: only {differ} in image and text; hold out fewer")
    apart = np.isin(image, image[chosen]) | np.isin(texts, texts[chosen])
    if apart.all():
        raise DataError(f"heldout {heldout}: no caption is left to train on; hold out fewer or caption more images")
    return np.flatnonzero(~apart), np.sort(chosen)


def numbered(values: Iterable[str]) -> np.ndarray:
    """Texts as numbers: equal ones have the same, and a greater one has a greater number."""
    import numpy as np

    given = list(values)
    places = {value: place for place, value in enumerate(sorted(set(given)))}
    return np.array([places[value] for value in given], np.int64)


def _firsts(groups: np.ndarray) -> np.ndarray:
    """Whether each value is another than the one before it: bool [n]."""
    import numpy as np

    first = np.ones(len(groups), bool)
    first[1:] = groups[1:] != groups[:-1]
    return first
