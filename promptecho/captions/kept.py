"""The captions that a merge keeps: their texts wait in a file without a name, in memory is only what orders them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.captions.packed import TextColumn, offsets_of
from promptecho.captions.store import CaptionLists
from promptecho.errors import DataError

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 4096  # texts that are read together


class PackedTexts:
    """Texts that are added and stay in memory: their bytes and lengths, in place of an object each."""

    def __init__(self) -> None:
        self.data, self.lengths = bytearray(), array("i")
        self._begins: np.ndarray | None = None  # where each text begins, once all are there

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, texts: Sequence[str]) -> None:
        joined = "".join(texts)
        self.data += joined.encode()
        self.lengths.extend(map(len, texts) if joined.isascii() else (len(text.encode()) for text in texts))

    def begins(self) -> np.ndarray:
        if self._begins is None:
            self._begins = offsets_of(self.lengths, len(self))
        return self._begins

    def bytes(self, chosen: np.ndarray) -> list[bytes]:
        """The texts `chosen`, in their order."""
        starts = self.begins()
        ends = starts[chosen + 1].tolist()
        return [bytes(self.data[a:b]) for a, b in zip(starts[chosen].tolist(), ends, strict=True)]

    def column(self, chosen: np.ndarray) -> TextColumn:
        """The texts `chosen` as they are written."""
        lengths = np_array(self.lengths)[chosen]
        return TextColumn(
            offsets_of(lengths, len(chosen)), lambda: (b"".join(self.bytes(some)) for some in parts_of(chosen))
        )

    def array(self) -> np.ndarray | None:
        """All of them as an array of "S", whose order is theirs; None where that would be large, or not exact."""
        import numpy as np

        lengths = np_array(self.lengths)
        width = int(lengths.max(initial=1))
        if width * len(self) > 2 * len(self.data) + 64 or b"\0" in self.data:
            return None
        if (lengths == width).all():
            return np.frombuffer(bytes(self.data), f"S{width}")
        filled = np.zeros((len(self), width), np.uint8)
        filled[np.arange(width) < lengths[:, None]] = np.frombuffer(bytes(self.data), np.uint8)
        return filled.view(f"S{width}")[:, 0]


class KeptCaptions:
    """Rows in the order in which they come. Memory holds about 130 bytes for each: its id, hashes and lengths. The file
    of the texts lies in `folder`, and is gone with this process.

    Raises:
        DataError: at any access, where that file cannot be written or read.
    """

    def __init__(self, folder: Path):
        self.names, self.hashes = PackedTexts(), PackedTexts()
        self.reasons: dict[str, int] = {}  # finish reason -> its number
        self.reason = array("i")
        self.n_tokens = array("i")
        self.lengths = array("i")
        self.digests = bytearray()  # 16 bytes a text
        self._begins: np.ndarray | None = None  # where each text begins, once all are there
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with this object)
        except OSError as error:
            raise self._failed(error) from None

    def __len__(self) -> int:
        return len(self.names)

    def add(self, rows: CaptionLists) -> None:
        texts = [text.encode() for text in rows.caption]
        try:
            self.file.write(b"".join(texts))
        except OSError as error:
            raise self._failed(error) from None
        self.names.add(rows.image_id)
        self.hashes.add(rows.image_sha256)
        self.reason.extend(self.reasons.setdefault(reason, len(self.reasons)) for reason in rows.finish_reason)
        self.n_tokens.extend(rows.n_tokens)
        self.lengths.extend(map(len, texts))
        self.digests += b"".join(hashlib.sha256(text).digest()[:16] for text in texts)

    def order(self) -> np.ndarray:
        """The rows in the order of their ids."""
        import numpy as np

        names = self.names.array()
        if names is not None:
            return np.argsort(names, kind="stable")
        every = self.names.bytes(np.arange(len(self)))
        return np.array(sorted(range(len(self)), key=every.__getitem__), np.int64)

    def images(self) -> np.ndarray | list[bytes]:
        """The hash of each row's image."""
        import numpy as np

        hashes = self.hashes.array()
        return self.hashes.bytes(np.arange(len(self))) if hashes is None else hashes

    def texts(self) -> np.ndarray:
        """Each row's text as a number, by a hash of 128 bits: the same for equal texts."""
        import numpy as np

        pairs = np.frombuffer(self.digests, "<u8").reshape(-1, 2)
        order = np.lexsort(pairs.T)
        new = np.ones(len(pairs), bool)
        new[1:] = (pairs[order][1:] != pairs[order][:-1]).any(1)
        found = np.empty(len(pairs), np.int64)
        found[order] = np.cumsum(new) - 1
        return found

    def columns(self, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, TextColumn]]:
        """`n_tokens` and the columns of texts of the rows `chosen`, in their order."""
        captions = TextColumn(offsets_of(np_array(self.lengths)[chosen], len(chosen)), lambda: self._captions(chosen))
        reason, reasons = np_array(self.reason)[chosen], PackedTexts()
        reasons.add(list(self.reasons))
        return np_array(self.n_tokens)[chosen], {
            "image_id": self.names.column(chosen),
            "caption": captions,
            "finish_reason": reasons.column(reason),
            "image_sha256": self.hashes.column(chosen),
        }

    def captions(self, chosen: np.ndarray) -> Iterator[tuple[str, str]]:
        """Id and text of the rows `chosen`, in their order."""
        for name, text in zip(self.names.bytes(chosen), self._read(chosen), strict=True):
            yield name.decode(), text.decode()

    def _captions(self, chosen: np.ndarray) -> Iterator[bytes]:
        for some in parts_of(chosen):
            yield b"".join(self._read(some))

    def _read(self, chosen: np.ndarray) -> Iterator[bytes]:
        try:
            self.file.flush()
            begins = offsets_of(self.lengths, len(self)) if self._begins is None else self._begins
            self._begins = begins
            for index, start in zip(chosen.tolist(), begins[chosen].tolist(), strict=True):
                text = os.pread(self.file.fileno(), self.lengths[index], start)
                if len(text) < self.lengths[index]:
                    raise OSError(0, "it ends too early")
                yield text
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: cannot keep captions in a temporary file here ({error.strerror or error}); free space or "
            "fix permissions, then rerun"
        )


def np_array(values: array[int]) -> np.ndarray:
    """As an array of numpy, without a copy."""
    import numpy as np

    return np.frombuffer(values, np.dtype(values.typecode))


def parts_of(chosen: np.ndarray) -> Iterator[np.ndarray]:
    """A few of `chosen` after the other."""
    return (chosen[start : start + AT_ONCE] for start in range(0, len(chosen), AT_ONCE))
