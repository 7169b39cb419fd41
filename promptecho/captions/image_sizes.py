"""How large the captioned images are: the file that goes with captions where training takes its sizes from images.

`image_sizes.jsonl` lies beside captions.h5: {data_id, width, height} of each caption, training and held out, in the
order of their ids; pixels as a viewer shows the image. It is a file of its own, so that captions that were finished
before anybody asked for sizes stay as they are. Imports neither torch nor h5py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from promptecho.captions.inputs import ImageItem
from promptecho.captions.prompts import ID_KEYS
from promptecho.errors import DataError, listed
from promptecho.files import write_jsonl
from promptecho.foreign import refuse_pipe
from promptecho.images import load_image
from promptecho.names import shown
from promptecho.progress import progress
from promptecho.text_files import TABLES, read_rows, suffix_of, value_of

SIZE_KEYS = ("width", "height")
HEAD_TELLS = ("JPEG", "MPO", "PNG", "WEBP")  # Pillow turns TIFF by itself
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height

Pixels = tuple[int, int]  # width, height


def upright_size(path: Path) -> Pixels:
    """Width and height of an image as a viewer shows it (EXIF orientation). Of the formats of most photographs the head
    tells; all others are read whole, as `load_image` does.

    Raises:
        DataError: it cannot be read.
    """
    with contextlib.suppress(Exception):
        refuse_pipe(path)
        with Image.open(path, formats=HEAD_TELLS) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation) in TURNED
            return (height, width) if turned else (width, height)
    return load_image(path).size  # which says why, where it cannot be read


def sizes_of_images(ids: Iterable[str], items: Iterable[ImageItem]) -> dict[str, Pixels]:
    """Size of the image of each caption in `ids`, which `items` say where to find.

    Raises:
        DataError: images that are not among them, or cannot be read; all are named.
    """
    paths, wanted = {item.image_id: item.path for item in items}, sorted(ids)
    found: dict[str, Pixels] = {}
    problems = []
    with progress("sizes of the captioned images", len(wanted), "images") as bar:
        for image_id in wanted:
            try:
                if image_id not in paths:
                    raise DataError("no such image any more; bring it back, or caption its shard again")
                found[image_id] = upright_size(paths[image_id])
            except (DataError, OSError) as error:
                problems.append(f"{shown(image_id)}: {error}")
            bar.advance(1)
    if problems:
        raise DataError(listed(problems, "captioned images without a size"))
    return found


def sizes_of_prompts(path: str | Path) -> dict[str, Pixels]:
    """Size that stands beside each prompt of a file that `read_prompts` reads, by the prompt's id.

    Raises:
        DataError: prompts without whole numbers above 0 as `width` and `height`; all are named.
    """
    path = Path(path)
    if suffix_of(path) not in TABLES:
        raise DataError(
            f"{path}: training.size_by: image takes width and height of each prompt, for which a list of lines has no "
            "place; give a .jsonl, .csv or .tsv file"
        )
    found: dict[str, Pixels] = {}
    problems = []
    for place, (line, row) in enumerate(read_rows(path), start=1):
        named = value_of(row, ID_KEYS)
        prompt_id = str(named[1] if named else f"{place:06d}")
        told = [(key, _whole((value_of(row, (key,)) or (key, None))[1])) for key in SIZE_KEYS]
        width, height = (number for _, number in told)
        if width is None or height is None:
            lacking = " and ".join(key for key, number in told if number is None)
            problems.append(f"{path}:{line}: prompt {place} (data_id {prompt_id!r}): needs a whole number as {lacking}")
        else:
            found[prompt_id] = width, height
    if problems:
        raise DataError(listed(problems, "prompts without the size that training.size_by: image takes"))
    return found


def _whole(value: Any) -> int | None:
    """A whole number above 0; also as text, and with the .0 that tables write where a column has gaps."""
    text = str(value).strip().removesuffix(".0") if not isinstance(value, bool) else ""
    return int(text) if text.isdecimal() and text.isascii() and int(text) else None


def write_sizes(path: Path, sizes: Mapping[str, Pixels]) -> None:
    """Write the file, atomically."""
    write_jsonl(path, [{"data_id": name, "width": sizes[name][0], "height": sizes[name][1]} for name in sorted(sizes)])


def read_sizes(path: Path) -> dict[str, Pixels]:
    """What `write_sizes` wrote.

    Raises:
        DataError: it is missing or is something else.
    """
    return sizes_of_prompts(path)
