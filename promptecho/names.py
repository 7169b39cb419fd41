"""Names of files as texts, and ids of images from them: any name that a file system holds has one, no two the same.

A name is its own id, unless it holds what no text file can: bytes that are not UTF-8, control characters (a newline,
say) and the two line separators of Unicode. Such a name is written `escaped://` and then with `\\xE9` for a byte,
`\\u000A` for a character and `\\\\` for a backslash. A path in a folder never holds `//`, so that no other name has
this id.
"""

from __future__ import annotations

import re

PREFIX = "escaped://"
# Fixed code points, not what a Python version calls printable: ids must not change with the Unicode tables.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9A-F]{2})|u([0-9A-F]{4}))")


def id_of(name: str) -> str:
    """The id of a file name as `os.fsdecode` gives it (bytes that are not UTF-8 as U+DC80 to U+DCFF)."""
    if not _UNSAFE.search(name):
        return name
    return PREFIX + _UNSAFE.sub(_escape, name.replace("\\", "\\\\"))


def name_of(image_id: str) -> str:
    """The file name again."""
    if not image_id.startswith(PREFIX):
        return image_id
    return _ESCAPE.sub(_unescape, image_id.removeprefix(PREFIX))


def shown(name: object) -> str:
    """A path or name as one line of an error can show it."""
    return _UNSAFE.sub(_escape, str(name))


def is_writable(name: str) -> bool:
    """Whether a name has a UTF-8 form and no NUL."""
    return "\0" not in name and name.encode(errors="ignore").decode() == name


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04X}"


def _unescape(found: re.Match[str]) -> str:
    byte, code = found.groups()
    return chr(0xDC00 + int(byte, 16)) if byte else chr(int(code, 16)) if code else "\\"


def by_number(name: str) -> tuple:
    """A key that sorts names as people do: seeds r-s2 before r-s10. Different names have different keys."""
    parts = re.split(r"(\d+)", name)
    return (tuple(int(part) if k % 2 else part for k, part in enumerate(parts)), name)
