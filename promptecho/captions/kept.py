"""The captions that a merge keeps: their texts wait in a file without a name, in memory is only what orders them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from promptecho.captions.packed import Packed, TextColumn, offsets_of, pack
from promptecho.captions.split import firsts_of, numbers_of, order_of
from promptecho.errors import DataError

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 1 << 23  # bytes of texts that are written together
GROUP = 1 << 22  # bytes of texts that are cut together
SHORT = 1 << 20  # bytes of ids or hashes that are written together
ROWS = 1 << 14  # texts that are read together, however short they are
GAP = 256  # bytes between two texts that are read with them rather than skipped
SOME = 1 << 12  # hashes that are told together
HASH = 64  # hexadecimal digits of a SHA-256


class PackedTexts:
    """Texts that are added and stay in memory: their bytes and lengths, in place of an object each."""

    def __init__(self) -> None:
        self.data, self.lengths = bytearray(), array("i")
        self._begins: np.ndarray | None = None  # where each text begins, once all are there

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, texts: Packed) -> None:
        self.data += memoryview(texts.data)
        self.lengths.frombytes(_lengths(texts))
        self._begins = None

    def begins(self) -> np.ndarray:
        if self._begins is None:
            self._begins = offsets_of(np_array(self.lengths), len(self))
        return self._begins

    def column(self, chosen: np.ndarray) -> TextColumn:
        """The texts `chosen` as they are written."""
        offsets = offsets_of(np_array(self.lengths)[chosen], len(chosen))
        return TextColumn(offsets, lambda: (self.joined(chosen[part]) for part in parts_of(offsets, SHORT)))

    def joined(self, chosen: np.ndarray) -> bytes:
        """The bytes of the texts `chosen`, one after another."""
        import numpy as np

        lengths = np_array(self.lengths)[chosen]
        ends = np.cumsum(lengths)
        places = np.repeat(self.begins()[chosen] - (ends - lengths), lengths)
        places += np.arange(len(places))
        return np.frombuffer(self.data, np.uint8)[places].tobytes()

    def bytes(self, chosen: np.ndarray) -> list[bytes]:
        """The texts `chosen`, in their order, as an object each."""
        return list(Packed(self.column(chosen).offsets, self.joined(chosen)).bytes())

    def array(self) -> np.ndarray | None:
        """All of them as an array of "S", whose order is theirs; None where that would be large, or not exact."""
        import numpy as np

        lengths = np_array(self.lengths)
        width = -int(lengths.max(initial=1)) // 8 * -8
        if width * len(self) > 2 * len(self.data) + 8 * len(self) + 64 or b"\0" in self.data:
            return None
        filled = np.zeros((len(self), width), np.uint8)
        filled[np.arange(width) < lengths[:, None]] = np.frombuffer(self.data, np.uint8)
        return filled.view(f"S{width}")[:, 0]


class PackedHashes:
    """Hashes of images: 32 bytes for each, as long as all are a SHA-256 in lower-case hexadecimal digits."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.others: PackedTexts | None = None

    def add(self, hashes: Packed) -> None:
        if self.others is None and (raw := _raw(hashes)) is not None:
            self.raw += raw
            return
        if self.others is None:
            self.others = PackedTexts()
            self.others.add(_told(self.raw))
            self.raw = bytearray()
        self.others.add(hashes)

    def numbered(self, rows: np.ndarray) -> tuple[np.ndarray, Iterable[bytes]]:
        """The hashes of `rows` as numbers, which are in the order of the hashes; and each hash, in their order."""
        import numpy as np

        if self.others is not None:
            return _ranked(self.others.bytes(rows))
        words = np.frombuffer(self.raw, ">u8").reshape(-1, HASH // 16)
        words = words if len(rows) == len(words) else words[rows]
        order = order_of(words)
        first = firsts_of(words[order])
        chosen = order[first]
        parts = (words[chosen[start : start + SOME]] for start in range(0, len(chosen), SOME))
        return numbers_of(order, first), (one for part in parts for one in _told(part.tobytes()).bytes())

    def column(self, chosen: np.ndarray) -> TextColumn:
        """The hashes `chosen` as they are written."""
        import numpy as np

        if self.others is not None:
            return self.others.column(chosen)
        raw = np.frombuffer(self.raw, np.uint8).reshape(-1, HASH // 2)
        offsets = np.arange(len(chosen) + 1, dtype=np.int64) * HASH
        return TextColumn(
            offsets, lambda: (_told(raw[chosen[part]].tobytes()).data for part in parts_of(offsets, SHORT))
        )


class KeptCaptions:
    """Rows in the order in which they come. Memory holds about 80 bytes for each, and its id: hashes, lengths, and
    where its text is. The file of the texts lies in `folder`, and is gone with this process.

    Raises:
        DataError: at any access, where that file cannot be written or read.
    """

    def __init__(self, folder: Path):
        self.names, self.hashes = PackedTexts(), PackedHashes()
        self.reasons: dict[str, int] = {}  # finish reason -> its number
        self.reason = array("i")
        self.n_tokens = array("i")
        self.lengths = array("i")
        self.digests = bytearray()  # 16 bytes a text
        self.size = 0  # of the file
        self._begins: np.ndarray | None = None  # where each text begins in the file, once all are there
        self.folder = folder

    @cached_property
    def file(self) -> IO[bytes]:
        """Made when there is something to write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self.folder)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, n_tokens: np.ndarray, texts: dict[str, Packed]) -> None:
        """Add rows; the columns are named as in a caption file (captions/store.py)."""
        self._append(texts["caption"].data)
        self.lengths.frombytes(_lengths(texts["caption"]))
        self.names.add(texts["image_id"])
        self.hashes.add(texts["image_sha256"])
        reasons = texts["finish_reason"].texts()
        self.reason.extend(self.reasons.setdefault(reason, len(self.reasons)) for reason in reasons)
        self.n_tokens.frombytes(n_tokens.astype("i", copy=False).tobytes())

    def begins(self) -> np.ndarray:
        """Where each text begins in the file; nothing is added any more."""
        if self._begins is None:
            self._begins = offsets_of(np_array(self.lengths), len(self))[:-1]
        return self._begins

    def groups(self) -> Iterator[tuple[slice, Packed]]:
        """All texts as they were added, some at a time, and which rows they are."""
        offsets = offsets_of(np_array(self.lengths), len(self))
        for rows in parts_of(offsets, GROUP):
            own = offsets[rows.start : rows.stop + 1]
            yield rows, Packed(own - own[0], self._pread(int(own[0]), int(own[-1] - own[0])))

    def cut(self, rows: slice, texts: Packed, cuts: dict[int, str]) -> None:
        """Go on with `cuts` (place in the group: text) in the place of a group's texts; the others stay."""
        pieces, begins = list(texts.bytes()), self.begins()
        for place, text in cuts.items():
            whole, part = pieces[place], text.encode()
            if part != whole:
                found, row = whole.find(part), rows.start + place
                begins[row] = begins[row] + found if found >= 0 else self.size
                if found < 0:
                    self._append(part)
                self.lengths[row] = len(part)
                pieces[place] = part
        self.digests += b"".join([hashlib.sha256(piece).digest()[:16] for piece in pieces])

    def numbers(self) -> np.ndarray:
        """Each row's text as a number from 0 on, by a hash of 128 bits: the same for equal texts."""
        import numpy as np

        words = np.frombuffer(self.digests, np.uint64).reshape(-1, 2)
        order = order_of(words)
        return numbers_of(order, firsts_of(words[order]))

    def by_reason(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each finish reason, and the rows that have it."""
        import numpy as np

        for reason, number in self.reasons.items():
            yield reason, np.flatnonzero(np_array(self.reason) == number)

    @cached_property
    def ranks(self) -> np.ndarray:
        """Each row's place in the order of the ids; rows of the same id have the same: int32 [n]."""
        import numpy as np

        if (names := self.names.array()) is not None:
            words = names.view(">u8").reshape(len(names), -1)
            order = order_of(words)
            return numbers_of(order, firsts_of(words[order]))
        return _ranked(self.names.bytes(np.arange(len(self))))[0]

    def name(self, row: int) -> str:
        """The id of a row."""
        import numpy as np

        return self.names.joined(np.array([row])).decode()

    def columns(self, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, TextColumn]]:
        """`n_tokens` and the columns of texts of the rows `chosen`, in their order."""
        offsets = offsets_of(np_array(self.lengths)[chosen], len(chosen))
        captions = TextColumn(
            offsets, lambda: (b"".join(self._read(chosen[part])) for part in parts_of(offsets, AT_ONCE))
        )
        reason, reasons = np_array(self.reason)[chosen], PackedTexts()
        reasons.add(pack(list(self.reasons)))
        return np_array(self.n_tokens)[chosen], {
            "image_id": self.names.column(chosen),
            "caption": captions,
            "finish_reason": reasons.column(reason),
            "image_sha256": self.hashes.column(chosen),
        }

    def captions(self, chosen: np.ndarray) -> Iterator[tuple[str, str]]:
        """Id and text of the rows `chosen`, in their order."""
        offsets = offsets_of(np_array(self.lengths)[chosen], len(chosen))
        for part in parts_of(offsets, AT_ONCE):
            rows = chosen[part]
            for name, text in zip(self.names.bytes(rows), self._read(rows), strict=True):
                yield name.decode(), str(text, "utf-8")

    def _read(self, chosen: np.ndarray) -> list[memoryview]:
        """The texts of the rows `chosen`, in their order. What lies side by side in the file is read together."""
        import numpy as np

        starts, lengths = self.begins()[chosen], np_array(self.lengths)[chosen]
        order = np.argsort(starts, kind="stable")
        ordered = starts[order]
        ends = ordered + lengths[order]
        apart = np.flatnonzero(ordered[1:] - ends[:-1] > GAP) + 1
        firsts, lasts = np.append(0, apart), np.append(apart, len(order)) - 1
        sizes = ends[lasts] - ordered[firsts]
        moved = np.repeat(offsets_of(sizes, len(sizes))[:-1] - ordered[firsts], lasts - firsts + 1)
        places = np.empty_like(starts)
        places[order] = ordered + moved
        data = b"".join(map(self._pread, ordered[firsts].tolist(), sizes.tolist()))
        view = memoryview(data)
        return [view[start:end] for start, end in zip(places.tolist(), (places + lengths).tolist(), strict=True)]

    def _append(self, data: Any) -> None:
        try:
            self.file.seek(self.size)
            self.file.write(memoryview(data))
            self.file.flush()
        except OSError as error:
            raise self._failed(error) from None
        self.size += len(data)

    def _pread(self, start: int, size: int) -> bytes:
        try:
            data = os.pread(self.file.fileno(), size, start)
            while len(data) < size:
                more = os.pread(self.file.fileno(), size - len(data), start + len(data))
                if not more:
                    raise OSError(0, "it ends too early")
                data += more
        except OSError as error:
            raise self._failed(error) from None
        return data

    def _failed(self, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: cannot keep captions in a temporary file here ({error.strerror or error}); free space or "
            "fix permissions, then rerun"
        )


def np_array(values: array[int]) -> np.ndarray:
    """As an array of numpy, without a copy."""
    import numpy as np

    return np.frombuffer(values, np.dtype(values.typecode))


def parts_of(offsets: np.ndarray, size: int) -> Iterator[slice]:
    """Texts with these offsets in parts of about `size` bytes, and of no more than `ROWS` texts."""
    import numpy as np

    count = len(offsets) - 1
    edges = np.searchsorted(offsets, np.arange(size, int(offsets[-1]), size)).tolist()
    starts = sorted({*range(0, count, ROWS), *edges, count})
    return (slice(start, end) for start, end in zip(starts, starts[1:], strict=False))


def _ranked(every: list[bytes]) -> tuple[np.ndarray, list[bytes]]:
    """Texts as numbers from 0 on in their order, int32 [n]; and each different one, in their order."""
    import numpy as np

    told = sorted(set(every))
    numbers = dict(zip(told, range(len(told)), strict=True))
    return np.array([numbers[one] for one in every], np.int32), told


def _lengths(texts: Packed) -> bytes:
    import numpy as np

    return np.diff(texts.offsets).astype("i").tobytes()


def _raw(hashes: Packed) -> bytes | None:
    """The bytes that hashes tell; None where some are told in another way."""
    import numpy as np

    if (np.diff(hashes.offsets) != HASH).any():
        return None
    try:
        digits = str(memoryview(hashes.data), "ascii")
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    return raw if raw.hex() == digits else None


def _told(raw: bytes | bytearray) -> Packed:
    """Hashes as they are written."""
    import numpy as np

    return Packed(np.arange(0, 2 * len(raw) + 1, HASH), raw.hex().encode())
