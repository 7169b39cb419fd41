"""Stand-ins for images that are not made yet, so that questions about them can be counted."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from promptecho.benchmarks.layout import Layout

END = 12  # bytes of a PNG's last chunk


def write_blank_images(layout: Layout, images_per_prompt: int, size: tuple[int, int]) -> int:
    """Write a blank image of `size` (height, width) for each that a layout wants, and what describes it; returns how
    many. No two have the same bytes, as real images would not: equal ones would be asked about once."""
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], "white").save(buffer, "PNG")
    blank, count = buffer.getvalue(), 0
    for p in layout.chosen:
        for i in range(images_per_prompt):
            path = Path(layout.image_path(p, i))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blank[:-END] + _text(str(count)) + blank[-END:])
            count += 1
    layout.describe(layout.chosen)
    return count


def _text(text: str) -> bytes:
    """A PNG chunk that holds a text."""
    data = b"Comment\0" + text.encode("latin-1")
    return struct.pack(">I", len(data)) + b"tEXt" + data + struct.pack(">I", zlib.crc32(b"tEXt" + data))
