"""Source images of prompts, for models that edit images: a column `image` of the prompt file, known by content."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptecho.errors import DataError, listed
from promptecho.files import sha256_file
from promptecho.text_files import TABLES, read_rows, suffix_of, value_of

if TYPE_CHECKING:
    from PIL import Image

KEY = "image"
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
            raise DataError(f"{self.path}: is another file than when this began; start again")
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


def named_images(path: str | Path) -> list[tuple[int, dict[str, Any], Path]]:
    """The rows of a prompt file (captions/prompts.py) that name an image: place from 1, row, and the image's path.

    Raises:
        DataError: the file cannot be read, or a name is no relative path that stays in the file's folder; all are
            named.
    """
    path = Path(path)
    if suffix_of(path) not in TABLES:
        return []
    found, problems = [], []
    for place, (line, row) in enumerate(read_rows(path), start=1):
        name = (value_of(row, (KEY,)) or (None, None))[1]
        if name is None or name == "":
            continue
        inside = isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
        if not isinstance(name, str) or not inside or "\0" in name:
            problems.append(f"{path}:{line}: {KEY} {name!r}: give a path below the folder of {path.name}")
            continue
        found.append((place, row, path.parent / name))
    if problems:
        raise DataError(listed(problems, "faulty names of images"))
    return found


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
