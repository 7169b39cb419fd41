"""Images of a scored folder in one file: an evaluation has about 9,000 of them, and file systems count files.

Only pictures are packed; listings and prompts stay, so that the folder still says what it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from promptecho.errors import DataError
from promptecho.files import atomic_path, read_jsonl
from promptecho.pointers import refuse_pointer

PACKED = "images.tar"


def pack(root: Path) -> int:
    """Move the PNG files below `root` into `root/images.tar`; returns how many. Packing again changes nothing.

    The same images make the same bytes. They are deleted only once the file is complete and its images have the
    hashes in the listings `shards/*.jsonl`.

    Raises:
        DataError: there are no images, or the packed ones are not those that were generated.
    """
    packed = root / PACKED
    images = sorted(path.relative_to(root) for path in root.rglob("*.png") if ".restoring-" not in str(path))
    if not packed.is_file():
        if not images:
            raise DataError(f"{root}: no images to pack; generate them first")
        with atomic_path(packed) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
                for name in images:
                    entry = tarfile.TarInfo(str(name))
                    entry.size = (root / name).stat().st_size
                    with open(root / name, "rb") as file:
                        archive.addfile(entry, file)
            _check(root, temporary)
    for name in images:  # also those that a kill between renaming and deleting has left
        (root / name).unlink()
    with tarfile.open(packed) as archive:
        return len(archive.getnames())


def discard(root: Path) -> int:
    """Delete the PNG files below `root`, loose or packed; returns how many. Prompts stay, and what was scored.

    The listings `shards/*.jsonl` go first: they say that the images are there, and a workflow that needs the images
    once more makes them again where the listings are missing. Discarding again changes nothing.

    Raises:
        DataError: the packed file is damaged.
    """
    for listing in root.glob("shards/*.jsonl"):
        listing.unlink()
    images, packed = sorted(root.rglob("*.png")), root / PACKED
    count = len(images)
    if packed.is_file():
        count = len({*_names(packed), *(str(path.relative_to(root)) for path in images)})
    for path in images:
        path.unlink()
    packed.unlink(missing_ok=True)
    return count


def _names(packed: Path) -> list[str]:
    try:
        with tarfile.open(packed) as archive:
            return archive.getnames()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{packed}: cannot read ({error}); delete it") from error


def _check(root: Path, packed: Path) -> None:
    listed = {row["filename"]: row["sha256"] for path in root.glob("shards/*.jsonl") for row in read_jsonl(path)}
    with tarfile.open(packed) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        found = {name: hashlib.sha256(file.read()).hexdigest() for name, file in files.items() if file is not None}
    for name, expected in sorted(listed.items()):
        if found.get(name) != expected:
            raise DataError(f"{root / name}: is not the image that was generated; generate it again")


def _extract(packed: Path, folder: Path) -> None:
    try:
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")  # refuses paths that leave the folder, and links
    except tarfile.TarError as error:
        refuse_pointer(packed)
        raise DataError(f"{packed}: cannot unpack ({error}); delete it and generate the images again") from error
    except OSError as error:  # a full disk, permissions: the file may be sound
        raise DataError(f"{packed}: cannot unpack to {folder} ({error}); free space or fix permissions") from error


def restore(root: Path) -> None:
    """Undo `pack`, for a generation that makes some of the images again. Files that are there stay: several shards may
    do this at once, and one may already have made its own.

    Raises:
        DataError: the packed file is damaged.
    """
    packed = root / PACKED
    if not packed.is_file():
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".restoring-") as folder:
        try:
            _extract(packed, Path(folder))
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # another shard has just restored everything
                return
            raise
        for path in sorted(Path(folder).rglob("*.png")):
            target = root / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(path, target)  # unlike a rename it never replaces
    packed.unlink(missing_ok=True)


@contextlib.contextmanager
def unpacked(root: Path) -> Iterator[Path]:
    """The folder itself, or where its images are packed a copy with all of them that is deleted afterwards; the copy's
    path ends like the folder's, in RUN/STEP/IMAGE_SET.

    Raises:
        DataError: the packed file is damaged.
    """
    if not (root / PACKED).is_file():
        yield root
        return
    beside = root.parent if os.access(root.parent, os.W_OK) else None  # results may be there to be read only
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unpacked-") as folder:
        copy = Path(folder).joinpath(*root.absolute().parts[-3:])
        for file in root.rglob("*"):  # without their permissions, which may forbid to add images
            if file.is_file() and file.name != PACKED:
                (copy / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / file.relative_to(root))
        copy.mkdir(parents=True, exist_ok=True)
        _extract(root / PACKED, copy)
        yield copy
