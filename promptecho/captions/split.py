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
    hashes = [row.image_sha256 for row in rows]
    texts, images, names = map(numbered, ([row.caption for row in rows], hashes, [row.image_id for row in rows]))
    chosen = split(texts, images, [one.encode() for one in sorted(set(hashes))], names, heldout, seed)
    training, held = ([rows[index] for index in part.tolist()] for part in chosen)
    return training, held


def split(
    texts: np.ndarray, images: np.ndarray, hashes: Iterable[bytes], names: np.ndarray, heldout: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training rows and of exactly `heldout` held-out rows, both upwards.

    Distinct captions are put in the order of a hash of `seed` and their image's hash (the smallest, where several
    images have the same caption), so that neither the order of the rows nor how often a caption occurs matters.
    The first of them with images not yet taken are held out, one row each. All other rows with a held-out image or a
    held-out text belong to neither side.

    Args:
        texts: int [n]; rows of the same caption have the same number, from 0 on.
        images: int [n]; the hashes of the rows' images as numbers, from 0 on in the order of the hashes.
        hashes: the hash of each number.
        names: int [n]; the rows' ids as numbers, which are in the order of the ids.

    Raises:
        DataError: too few distinct captions, or nothing is left to train on.
    """
    import numpy as np

    turns = bytearray()
    for one in hashes:
        turns += hashlib.sha256(b"%d:%b" % (seed, one)).digest()
    turn = np.empty(len(turns) // 32, np.int32)
    turn[order_of(np.frombuffer(turns, ">u8").reshape(-1, 4))] = np.arange(len(turn))
    del turns
    ordered = np.lexsort((names, images, texts))
    ordered = ordered[_firsts(texts[ordered])]
    ordered = ordered[np.lexsort((names[ordered], turn[images[ordered]]))]
    chosen = ordered[_firsts(images[ordered])][:heldout]
    if len(chosen) < heldout:
        differ = counted(len(chosen), "caption differs", "captions differ")
        raise DataError(f"heldout {heldout}: only {differ} in image and text; hold out fewer")
    apart = np.isin(images, images[chosen]) | np.isin(texts, texts[chosen])
    if apart.all():
        raise DataError(f"heldout {heldout}: no caption is left to train on; hold out fewer or caption more images")
    return np.flatnonzero(~apart), np.sort(chosen)


def numbered(values: Iterable[str]) -> np.ndarray:
    """Texts as numbers: equal ones have the same, and a greater one has a greater number."""
    import numpy as np

    given = list(values)
    places = {value: place for place, value in enumerate(sorted(set(given)))}
    return np.array([places[value] for value in given], np.int64)


def order_of(words: np.ndarray) -> np.ndarray:
    """Rows in the order of their words, the first of which counts most; equal rows stay in theirs: uint [n, words]."""
    import numpy as np

    order = np.argsort(words[:, 0].astype(np.uint64), kind="stable")
    first = words[order, 0]
    equal = np.flatnonzero(first[1:] == first[:-1])  # as a rule none: then the first word alone has ordered them
    if (words[order[equal]] != words[order[equal + 1]]).any():
        order = np.lexsort([words[:, place].astype(np.uint64) for place in reversed(range(words.shape[1]))])
    return order


def firsts_of(ordered: np.ndarray) -> np.ndarray:
    """Whether each row is another than the one before it: bool [n] of [n, words]."""
    import numpy as np

    first = np.ones(len(ordered), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    return first


def numbers_of(order: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Rows as numbers, from 0 on in their order, of which equal rows have the same: int32 [n].

    Args:
        order: int [n]; the rows in their order.
        first: bool [n]; whether each is another than the one before it.
    """
    import numpy as np

    found = np.empty(len(order), np.int32)
    found[order] = np.cumsum(first, dtype=np.int32) - 1
    return found


def _firsts(groups: np.ndarray) -> np.ndarray:
    """Whether each value is another than the one before it: bool [n]."""
    import numpy as np

    first = np.ones(len(groups), bool)
    first[1:] = groups[1:] != groups[:-1]
    return first
