"""Which files of a folder are images to caption, and why the others are not."""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.errors import DataError, counted
from promptecho.images import HEIF_EXTRA, HEIF_SUFFIXES
from promptecho.names import shown

# What the pinned Pillow reads and a photograph or drawing is kept in; not icons, fonts, films and vector graphics.
IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".tga", ".icb", ".vda", ".vst", ".ppm", ".pgm",
    ".pbm", ".pnm", ".pfm", ".qoi", ".sgi", ".rgb", ".rgba", ".bw", ".pcx", ".pcd", ".ras",
)  # fmt: skip
# Images too, but in no format that is read here.
UNREADABLE = {
    ".psd": "an editor's file", ".psb": "an editor's file", ".xcf": "an editor's file", ".kra": "an editor's file",
    ".clip": "an editor's file", ".svg": "a drawing without pixels", ".eps": "a drawing without pixels",
    ".ai": "a drawing without pixels", ".pdf": "a document", ".jxl": "JPEG XL", ".jxr": "JPEG XR", ".exr": "OpenEXR",
    ".hdr": "Radiance",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"), "a raw photograph"),
}  # fmt: skip
# Folders in which programs keep their own: copies, thumbnails, what was deleted.
TOOL_FOLDERS = {
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "__pycache__",
    "lost+found", "system volume information",
}  # fmt: skip
TOLD_FOLDERS = 20


@dataclass
class FolderImages:
    """Images of a folder, as paths below it, and how many other files there are for which reasons, by sub-folder."""

    names: list[str] = field(default_factory=list)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)

    def leave_out(self, folder: str, reason: str) -> None:
        self.left_out.setdefault(folder, Counter())[reason] += 1

    @property
    def reasons(self) -> Counter[str]:
        return sum(self.left_out.values(), Counter())


def walk(root: Path) -> FolderImages:
    """Find the images below `root`. Links are followed; a folder that was reached already is not taken again.

    Raises:
        DataError: folders that cannot be read; all are named.
    """
    found, problems = FolderImages(), []
    visited = {_identity(os.stat(root))}
    heif = importlib.util.find_spec("pillow_heif") is not None
    queue = deque([""])
    links: deque[str] = deque()  # followed after all real folders, so that these have their own names
    while queue or links:
        folder = queue.popleft() if queue else links.popleft()
        here = os.path.join(root, folder)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{shown(here)} ({error.strerror})")
            continue
        for entry in entries:
            name = os.path.join(folder, entry.name)
            try:
                facts = entry.stat()
            except OSError as error:
                if entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                    found.leave_out(folder, "link that leads nowhere")
                else:
                    problems.append(f"{shown(entry.path)} ({error.strerror})")
                continue
            if not stat.S_ISDIR(facts.st_mode):
                reason = _reason(entry.name, facts.st_mode, heif)
                if reason is None:
                    found.names.append(name)
                else:
                    found.leave_out(folder, reason)
            elif entry.name.startswith(".") or entry.name.lower() in TOOL_FOLDERS:
                found.leave_out(folder, f"folder {shown(entry.name)} (hidden, or of a program)")
            elif entry.is_symlink():
                links.append(name)
            elif _identity(facts) not in visited:
                visited.add(_identity(facts))
                queue.append(name)
        while links and not queue:
            facts = os.stat(os.path.join(root, links[0]))
            if _identity(facts) not in visited:
                visited.add(_identity(facts))
                break
            link = links.popleft()
            found.leave_out(os.path.dirname(link), "link to a folder that is there already")
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(
            f"{shown(root)}: these cannot be read: {', '.join(problems[:10])}{more}; allow it, or move them away"
        )
    return found


def told(taken: list[str], left_out: dict[str, Counter[str]]) -> Iterator[str]:
    """Lines for the log: what is taken and what is not, in all and for each folder that leaves something out."""
    yield f"images: {_counts(len(taken), sum(left_out.values(), Counter()))}"
    if len(left_out) > 1:
        by_folder = Counter(os.path.dirname(name) for name in taken)
        for folder in sorted(left_out)[:TOLD_FOLDERS]:
            yield f"  {shown(folder) or '.'}: {_counts(by_folder[folder], left_out[folder])}"
        if len(left_out) > TOLD_FOLDERS:
            yield f"  ... and {counted(len(left_out) - TOLD_FOLDERS, 'more folder')}"


def _counts(taken: int, reasons: Counter[str]) -> str:
    if not reasons:
        return f"{taken} taken, none left out"
    return f"{taken} taken, {reasons.total()} left out: {by_reason(reasons)}"


def by_reason(reasons: Counter[str]) -> str:
    """Counts and reasons, the most frequent first."""
    most_first = sorted(reasons.items(), key=lambda item: (-item[1], item))
    return ", ".join(f"{count} {reason}" for reason, count in most_first)


def _reason(name: str, mode: int, heif: bool) -> str | None:
    """Why a file is no image to caption; None if it is one."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return "hidden files"
    if not stat.S_ISREG(mode):
        return "pipes, sockets or devices"
    if suffix in IMAGE_SUFFIXES or (suffix in HEIF_SUFFIXES and heif):
        return None
    if suffix in HEIF_SUFFIXES:
        return f"{suffix} ({HEIF_EXTRA})"
    if suffix in UNREADABLE:
        return f"{suffix} (no format that can be read: {UNREADABLE[suffix]}; export as PNG or TIFF)"
    return f"{shown(suffix)} (no image)" if suffix else "without a suffix"


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
