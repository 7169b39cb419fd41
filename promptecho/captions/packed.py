"""A column of texts as caption files keep it: the bytes of all texts one after another, and where each begins.

So a million captions are two arrays, read in one go, and any single one is a read of its own bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CHUNK = 1 << 24  # bytes that are read or written at once
GROUP = 1 << 14  # texts that are encoded at once


@dataclass(frozen=True)
class Packed:
    """Texts in memory: `data` holds their UTF-8 bytes, text k from offsets[k] to offsets[k + 1] (int64, [n + 1])."""

    offsets: np.ndarray
    data: Any  # bytes, or an array of uint8

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def bytes(self) -> Iterator[bytes]:
        """Each text's bytes."""
        view, ends = memoryview(self.data), self.offsets.tolist()
        return (bytes(view[start:end]) for start, end in zip(ends, ends[1:], strict=False))

    def texts(self, start: int = 0, end: int | None = None) -> list[str]:
        """The texts from `start` to `end`; by default all.

        Raises:
            UnicodeDecodeError: some are not UTF-8.
        """
        ends = self.offsets[start : None if end is None else end + 1]
        first, last = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
        return _decoded(bytes(memoryview(self.data)[first:last]), (ends - first).tolist())

    def text(self, place: int) -> str:
        """The text at one place."""
        return str(memoryview(self.data)[self.offsets[place] : self.offsets[place + 1]], "utf-8")

    def check(self) -> None:
        """Look whether all can be read.

        Raises:
            UnicodeDecodeError: some are not UTF-8.
        """
        if not bytes(memoryview(self.data)).isascii():
            self.texts()

    def codes(self) -> np.ndarray:
        """The bytes of all texts: uint8."""
        import numpy as np

        return np.frombuffer(self.data, np.uint8)

    def framed(self) -> np.ndarray:
        """Whether a text begins and ends with a character of ASCII that is not white space: bool [n]."""
        import numpy as np

        found = np.diff(self.offsets) > 0
        codes, rows = self.codes(), np.flatnonzero(found)
        found[rows] = seen(codes[self.offsets[rows]]) & seen(codes[self.offsets[rows + 1] - 1])
        return found

    def blank(self) -> list[int]:
        """The places of texts that hold nothing but white space."""
        return [place for place in (~self.framed()).nonzero()[0].tolist() if not self.text(place).strip()]


@dataclass(frozen=True)
class TextColumn:
    """What is written as a column of texts: where each begins, and the bytes of all of them in parts of any size."""

    offsets: np.ndarray
    parts: Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Stored:
    """Texts that stay in their file, which is held open: what is replaced by another file meanwhile stays readable."""

    offsets: np.ndarray
    file: Any  # open for reading
    place: int  # of the first text in the file

    def texts(self, start: int, end: int) -> list[str]:
        """The texts from `start` to `end`, in one read.

        Raises:
            OSError: the file is out of reach.
            ValueError: it has become shorter, or what is there is not UTF-8.
        """
        ends = self.offsets[start : end + 1].tolist()
        first, last = self.place + ends[0], self.place + ends[-1]
        data = os.pread(self.file.fileno(), last - first, first)
        while len(data) < last - first:
            more = os.pread(self.file.fileno(), last - first - len(data), first + len(data))
            if not more:
                raise ValueError("it ends too early")
            data += more
        return _decoded(data, [end - ends[0] for end in ends])


def _decoded(data: bytes, ends: list[int]) -> list[str]:
    """The texts between `ends`; those of ASCII alone are decoded together.

    Raises:
        UnicodeDecodeError: some are not UTF-8.
    """
    if data.isascii():
        whole = data.decode("ascii")
        return [whole[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    return [str(data[start:end], "utf-8") for start, end in zip(ends, ends[1:], strict=False)]


def seen(codes: np.ndarray) -> np.ndarray:
    """Whether each byte is a character of ASCII that is neither white space nor a control character: bool [n]."""
    return codes - 33 < 94  # uint8: smaller ones wrap around


def offsets_of(lengths: Any, count: int) -> np.ndarray:
    """Where `count` texts of these lengths (bytes) begin, and where the last one ends: int64 [count + 1]."""
    import numpy as np

    offsets = np.zeros(count + 1, np.int64)
    given = lengths if isinstance(lengths, np.ndarray) else np.fromiter(lengths, np.int64, count)
    np.cumsum(given, out=offsets[1:])
    return offsets


def column(texts: Sequence[str]) -> TextColumn:
    """Texts to write; they are encoded in groups, so that there is never a second copy of all of them."""

    def groups() -> Iterator[Sequence[str]]:
        return (texts[start : start + GROUP] for start in range(0, len(texts), GROUP))

    def lengths() -> Iterator[int]:
        for group in groups():
            if "".join(group).isascii():
                yield from map(len, group)
            else:
                yield from (len(text.encode()) for text in group)

    return TextColumn(offsets_of(lengths(), len(texts)), lambda: ("".join(group).encode() for group in groups()))


def pack(texts: Sequence[str]) -> Packed:
    """Texts in memory."""
    packed = column(texts)
    return Packed(packed.offsets, b"".join(packed.parts()))


def checksum(parts: Iterator[Any]) -> str:
    """SHA-256 of a column: of its offsets and its bytes, or of its numbers."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def sound(offsets: np.ndarray, size: int) -> bool:
    """Whether offsets fit `size` bytes: from 0 upwards to their end."""
    return bool(
        offsets.ndim == 1 and len(offsets) and offsets[0] == 0 and offsets[-1] == size
        and (offsets[1:] >= offsets[:-1]).all()
    )  # fmt: skip
