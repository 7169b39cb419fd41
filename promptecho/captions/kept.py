"""The captions that a merge keeps: their texts wait in a file without a name, in memory is only what orders them."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.captions.packed import TextColumn, column, offsets_of
from promptecho.captions.store import CaptionRow
from promptecho.errors import DataError

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 4096  # texts that are read together


class KeptCaptions:
    """Rows in the order in which they come; memory holds ids, hashes and lengths, however long texts are. The file
    of the texts lies in `folder`, and is gone with this process.

    Raises:
        DataError: at any access, where that file cannot be written or read.
    """

    def __init__(self, folder: Path):
        self.names: list[str] = []
        self.reasons: list[str] = []
        self.hashes: list[bytes] = []
        self.n_tokens = array("i")
        self.lengths = array("q")
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

    def add(self, rows: list[CaptionRow]) -> None:
        texts = [row.caption.encode() for row in rows]
        try:
            self.file.write(b"".join(texts))
        except OSError as error:
            raise self._failed(error) from None
        for row, text in zip(rows, texts, strict=True):
            self.names.append(row.image_id)
            self.reasons.append(sys.intern(row.finish_reason))
            self.hashes.append(row.image_sha256.encode())
            self.n_tokens.append(row.n_tokens)
            self.lengths.append(len(text))
            self.digests += hashlib.blake2b(text, digest_size=16).digest()

    def order(self) -> np.ndarray:
        """The rows in the order of their ids."""
        import numpy as np

        return np.array(sorted(range(len(self)), key=self.names.__getitem__), np.int64)

    def texts(self) -> np.ndarray:
        """Each row's text as a number, by a hash of 128 bits: the same for equal texts."""
        import numpy as np

        pairs = np.frombuffer(bytes(self.digests), "<u8").reshape(-1, 2)
        order = np.lexsort(pairs.T)
        new = np.ones(len(pairs), bool)
        new[1:] = (pairs[order][1:] != pairs[order][:-1]).any(1)
        found = np.empty(len(pairs), np.int64)
        found[order] = np.cumsum(new) - 1
        return found

    def columns(self, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, TextColumn]]:
        """`n_tokens` and the columns of texts of the rows `chosen`, in their order."""
        import numpy as np

        some = chosen.tolist()
        lengths = np.array(self.lengths, np.int64)[chosen]
        captions = TextColumn(offsets_of(lengths.tolist(), len(some)), lambda: self._captions(chosen))
        return np.array(self.n_tokens, np.int32)[chosen], {
            "image_id": column([self.names[index] for index in some]),
            "caption": captions,
            "finish_reason": column([self.reasons[index] for index in some]),
            "image_sha256": column([self.hashes[index].decode() for index in some]),
        }

    def captions(self, chosen: np.ndarray) -> Iterator[tuple[str, str]]:
        """Id and text of the rows `chosen`, in their order."""
        for index, text in zip(chosen.tolist(), self._read(chosen), strict=True):
            yield self.names[index], text.decode()

    def _captions(self, chosen: np.ndarray) -> Iterator[bytes]:
        for start in range(0, len(chosen), AT_ONCE):
            yield b"".join(self._read(chosen[start : start + AT_ONCE]))

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
