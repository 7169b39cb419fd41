"""What may be deleted, or was deleted, as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from promptecho.clean.delete import Cleaning
from promptecho.clean.find import KINDS
from promptecho.errors import counted

SHOWN = 5  # paths of a kind


def lines(cleanings: Sequence[Cleaning]) -> Iterator[str]:
    """One block for each experiment, by kind, and the sum."""
    for one in cleanings:
        for kind, share in one.kinds.items():
            if share.paths:
                yield f"{one.experiment}: {KINDS[kind]}: {counted(share.files, 'file')}, {size(share.bytes)}"
                yield from (f"  {path}" for path in share.paths[:SHOWN])
                if len(share.paths) > SHOWN:
                    yield f"  ... and {len(share.paths) - SHOWN} more (--json lists all)"
        for link in one.links:
            yield f"{one.experiment}: {link} is a link, and what it leads to stays"
        for path, file in one.named.items():
            yield f"{one.experiment}: {path} is named in {file}, and stays"
        if one.refused:
            yield f"{one.experiment}: nothing can be deleted now: {one.refused}"
    total = sum(one.bytes for one in cleanings)
    if not any(share.paths for one in cleanings for share in one.kinds.values()):
        yield "there is nothing to clean"
    elif all(one.deleted for one in cleanings):
        yield f"deleted: {size(total)}"
    else:
        yield f"nothing was deleted; with --yes this would free {size(total)}"


def size(count: float) -> str:
    """Bytes in the largest fitting unit."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
