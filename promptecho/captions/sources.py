"""The source images of prompts that edit one: read beside the prompts, and kept with the captions by their content.

`captions/sources/SHA256.png` (or whichever kind of file it is) is a copy beside captions.h5, whose column
`image_sha256` says which image is whose. So training looks at what the merge looked at, whatever becomes of the files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptecho.captions.prompts import ID_KEYS
from promptecho.captions.store import image_hashes, merge_facts
from promptecho.config.families import Family
from promptecho.errors import DataError, counted, listed
from promptecho.files import atomic_path, copy_file, sha256_file
from promptecho.source_images import CHANGED, DAMAGED, KEY, SourceImage, named_images, rows_of
from promptecho.text_files import value_of

FOLDER = "sources"
MARK = "source_images"  # in what a merged file says of its merge
_HASH = re.compile("[0-9a-f]{64}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")  # others may be too long, or tell nothing


def read_sources(path: str | Path, family: Family | None = None) -> dict[str, SourceImage]:
    """Prompt id -> source image, of those prompts of a file that have one in `image`: a path below the file's folder.

    Args:
        family: of the text-to-image model, where it is known. One that takes no images is told of them before anything
            is made of what `image` holds, which may be meant for another program.

    Raises:
        DataError: `family` takes no images and some prompts have one; or an image is missing, cannot be read, or is a
            copy of ours that was damaged, or its name leads elsewhere. All are named.
    """
    if family is not None and not family.source_image:
        rows = rows_of(path)
        given = [_id_of(row, place) for place, (_, row, image) in enumerate(rows, start=1) if image is not None]
        _refuse(given, len(rows), _not_taken(family), path)
        return {}
    found, problems = {}, []
    for place, row, image in named_images(path):
        prompt_id = _id_of(row, place)
        try:
            found[prompt_id] = SourceImage.at(image)
            if (hashed := _hash_in(image)) is not None and hashed != found[prompt_id].sha256:
                raise DataError(f"{image}: {DAMAGED}")
        except DataError as error:
            problems.append(f"{prompt_id}: {error}")
    if problems:
        raise DataError(f"{path}: source images:\n{listed(problems, 'images')}")
    return found


def _id_of(row: Mapping[str, Any], place: int) -> str:
    named = value_of(dict(row), ID_KEYS)
    return str(named[1]) if named else f"{place:06d}"


def _hash_in(image: Path) -> str | None:
    """The hash that is the name of a copy of ours, which lies beside captions.h5; None for other files."""
    ours = image.parent.name == FOLDER and (image.parent.parent / "captions.h5").is_file()
    return image.stem if ours and _HASH.fullmatch(image.stem) else None


def _not_taken(family: Family) -> str:
    return f"a source image, which {family.title} does not take; remove `{KEY}`"


def _refuse(names: Sequence[str], total: int, told: str, where: str | Path) -> None:
    """Nothing, if no prompt is named.

    Raises:
        DataError: some are; it names them.
    """
    if names:
        verb = "has" if len(names) == 1 else "have"
        lines = listed([f"  {name}" for name in names], "prompts")
        raise DataError(f"{where}: {len(names)} of {counted(total, 'prompt')} {verb} {told}:\n{lines}")


def check_sources(
    family: Family | None, ids: Iterable[str], sources: Mapping[str, SourceImage], where: str | Path
) -> None:
    """Nothing, if all prompts or none have a source image, as the family takes them (None: it is not known).

    Raises:
        DataError: it is otherwise; names the prompts.
    """
    if not sources and (family is None or not family.source_image):
        return
    every = list(ids)
    missing, given = [one for one in every if one not in sources], [one for one in every if one in sources]
    if family is not None and not family.source_image:
        names, told = given, _not_taken(family)
    else:
        title = "the others have" if family is None else f"{family.title} edits"
        names, told = missing, f"no source image, which {title}; give each an `{KEY}`"
    _refuse(names, len(every), told, where)


def check_images(sources: Mapping[str, SourceImage], where: str | Path) -> None:
    """Decode each image once.

    Raises:
        DataError: some are no images or cannot be taken; all are named.
    """
    problems = []
    for name, source in sources.items():
        try:
            source.load()
        except DataError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError(f"{where}: source images:\n{listed(problems, 'images')}")


def keep(source: SourceImage, folder: Path) -> str:
    """Have a copy of an image below `folder`, named by its content; returns its name there. A damaged copy is made
    again.

    Raises:
        DataError: it cannot be written, or the image has changed since it was looked at.
    """
    suffix = source.path.suffix.lower()
    name = f"{FOLDER}/{source.sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
    place = folder / name
    if not place.exists() or sha256_file(place) != source.sha256:
        with atomic_path(place) as temporary:
            copy_file(source.path, temporary, place)
            if sha256_file(temporary) != source.sha256:
                raise DataError(f"{source.path}: {CHANGED}")
    return name


def kept_sources(captions: str | Path) -> dict[str, SourceImage]:
    """Prompt id -> source image of merged captions; {} for those without.

    Raises:
        DataError: the file is damaged, or the copy of an image is not beside it; names the prompts.
    """
    if not merge_facts(captions).get(MARK):
        return {}
    folder = Path(captions).parent / FOLDER
    there: dict[str, Path] = {}
    with contextlib.suppress(FileNotFoundError):
        there = {Path(name).stem: folder / name for name in sorted(os.listdir(folder))}
    hashes = image_hashes(captions)
    if missing := [name for name, sha256 in hashes if sha256 not in there]:
        raise DataError(
            f"{folder}: the source images of {len(missing)} of {len(hashes)} prompts are not there "
            f"({_some(missing)}); bring them, or make {captions} again"
        )
    return {name: SourceImage(there[sha256], sha256) for name, sha256 in hashes}


def hashes_of(sources: Mapping[str, SourceImage]) -> list[dict[str, str]]:
    """What prompts have beside their text, as labels are (train/prompts.py): nothing, or the hashes of their images."""
    return [{name: source.sha256 for name, source in sources.items()}] if sources else []


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
