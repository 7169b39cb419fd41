"""Source images of prompts, for models that edit images: a column `image` of the prompt file, known by content."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptecho.errors import DataError, listed
from promptecho.files import sha256_file
from promptecho.names import is_writable, shown
from promptecho.text_files import TABLES, read_rows, suffix_of, value_of

if TYPE_CHECKING:
    from PIL import Image

KEY = "image"
DAMAGED = (
    "its content is not what its name says; put the right file there, or, if it is a copy in results/, delete it and "
    "make the captions again"
)
CHANGED = "is another file than when this began; start again"
LONGEST = 20  # the longer side of a source image, as a multiple of the shorter


@dataclass(frozen=True)
class SourceImage:
    """An image file. Two with the same content are the same, wherever they lie."""

    path: Path = field(compare=False)
    sha256: str

    @classmethod
    def at(cls, path: Path) -> SourceImage:
        """The file as it is now.

        Raises:
            DataError: it is missing or cannot be read.
        """
        return cls(path, sha256_file(path))

    def load(self) -> Image.Image:
        """Upright, as 8-bit RGB on white (promptecho/images.py).

        Raises:
            DataError: it is missing, no image, longer than the models take, or another file by now.
        """
        from promptecho.images import load_image

        if sha256_file(self.path) != self.sha256:
            raise DataError(f"{self.path}: {DAMAGED if self.path.stem == self.sha256 else CHANGED}")
        image = load_image(self.path)
        if max(image.size) > LONGEST * min(image.size):
            raise DataError(
                f"{self.path}: {image.width} x {image.height} pixels: one side is more than {LONGEST} times the other; "
                "crop it or leave it out"
            )
        return image


@dataclass(frozen=True)
class EditPrompt:
    """An instruction and the image that it is for."""

    text: str
    source: SourceImage


Prompt = str | EditPrompt


def rows_of(path: str | Path) -> list[tuple[int, dict[str, Any], Any]]:
    """The rows of a prompt file (captions/prompts.py): line, row, and what it has as `image`, whatever that is; None
    where it has nothing.

    Raises:
        DataError: the file cannot be read.
    """
    if suffix_of(path) not in TABLES:
        return []
    found = [(line, row, value_of(row, (KEY,))) for line, row in read_rows(path)]
    return [(line, row, None if named is None or named[1] == "" else named[1]) for line, row, named in found]


def named_images(path: str | Path) -> list[tuple[int, dict[str, Any], Path]]:
    """The rows of a prompt file that name an image: place from 1, row, and the image's path.

    Raises:
        DataError: the file cannot be read, or a name is no relative path that stays in the file's folder, links in it
            followed; all are named.
    """
    path = Path(path)
    folder, found, problems = os.path.realpath(path.parent), [], []
    for place, (line, row, name) in enumerate(rows_of(path), start=1):
        if name is None:
            continue
        if problem := _name_problem(name, path, folder):
            problems.append(f"{path}:{line}: {KEY} {name!a:.80}: {problem}")
            continue
        found.append((place, row, path.parent / name))
    if problems:
        raise DataError(listed(problems, "faulty names of images"))
    return found


def _name_problem(name: Any, path: Path, folder: str) -> str | None:
    """Why `name` names no file in the folder of the prompt file `path`, which is `folder` without links."""
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        return f"give a path below the folder of {path.name}"
    if not is_writable(name):
        return "holds a NUL or half a character; rename the file"
    # A link may lead out of the folder: what it leads to would be copied and handed on without being meant.
    place = os.path.realpath(path.parent / name)
    if os.path.commonpath([folder, place]) != folder:
        return f"a link that leads out of the folder of {path.name}, to {shown(place)}; put a copy there (cp -L)"
    return None


def image_files(path: str | Path) -> tuple[Path, ...]:
    """The images that a prompt file names; none where it cannot be read, which is told when it is used. Read again only
    when the file has changed."""
    try:
        about = Path(path).stat()
        return _image_files(str(path), about.st_mtime_ns, about.st_size)
    except (OSError, DataError):
        return ()


@functools.lru_cache(maxsize=16)
def _image_files(path: str, time_ns: int, size: int) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(image for _, _, image in named_images(path)))
