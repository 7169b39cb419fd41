"""The source images of prompts that edit one: read beside the prompts, and kept with the captions by their content.

`captions/sources/SHA256.png` (or whichever kind of file it is) is a copy beside captions.h5, whose column
`image_sha256` says which image is whose. So training looks at what the merge looked at, whatever becomes of the files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from promptecho.captions.prompts import ID_KEYS
from promptecho.captions.store import image_hashes, merge_facts
from promptecho.config.families import Family
from promptecho.errors import DataError, counted, listed
from promptecho.files import atomic_path
from promptecho.source_images import KEY, SourceImage, named_images
from promptecho.text_files import value_of

FOLDER = "sources"
MARK = "source_images"  # in what a merged file says of its merge


def read_sources(path: str | Path) -> dict[str, SourceImage]:
    """Prompt id -> source image, of those prompts of a file that have one in `image`: a path below the file's folder.

    Raises:
        DataError: an image is missing or cannot be read, or its name leads elsewhere; all are named.
    """
    found, problems = {}, []
    for place, row, image in named_images(path):
        named = value_of(row, ID_KEYS)
        prompt_id = str(named[1]) if named else f"{place:06d}"
        try:
            found[prompt_id] = SourceImage.at(image)
        except DataError as error:
            problems.append(f"{prompt_id}: {error}")
    if problems:
        raise DataError(f"{path}: source images:\n{listed(problems, 'images')}")
    return found


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
        names, told = given, f"a source image, which {family.title} does not take; remove `{KEY}`"
    else:
        title = "the others have" if family is None else f"{family.title} edits"
        names, told = missing, f"no source image, which {title}; give each an `{KEY}`"
    if names:
        verb = "has" if len(names) == 1 else "have"
        lines = listed([f"  {name}" for name in names], "prompts")
        raise DataError(f"{where}: {len(names)} of {counted(len(every), 'prompt')} {verb} {told}:\n{lines}")


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
    """Have a copy of an image below `folder`, named by its content; returns its name there.

    Raises:
        DataError: it cannot be written.
    """
    name = f"{FOLDER}/{source.sha256}{source.path.suffix.lower()}"
    place = folder / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary:
            shutil.copyfile(source.path, temporary)
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
