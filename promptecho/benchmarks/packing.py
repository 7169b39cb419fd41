"""Images of a scored folder in one file: an evaluation has about 9,000 of them, and file systems count files.

Only pictures are packed; listings and prompts stay, so that the folder still says what it holds. Images that were
generated into archives (archives.py) are in few files already and stay where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from promptecho.archives import SHARDS, ImageStore, archive_paths
from promptecho.config.benchmarks import available_benchmarks, load_part
from promptecho.errors import DataError
from promptecho.files import atomic_path, copy_file, read_jsonl
from promptecho.pointers import refuse_pointer

PACKED = "images.tar"


def pack(root: Path) -> int:
    """Move the PNG files below `root` into `root/images.tar`; returns how many images are in it and in archives.
    Packing again changes nothing.

    The same images make the same bytes. They are deleted only once the file is complete and its images have the
    hashes in the listings `shards/*.jsonl`.

    Raises:
        DataError: there are no images, or the packed ones are not those that were generated.
    """
    packed = root / PACKED
    images = sorted(path.relative_to(root) for path in root.rglob("*.png") if ".restoring-" not in str(path))
    archived = {name for archive in ImageStore(root).archives for name in archive.names if name.endswith(".png")}
    if not packed.is_file():
        if not images and archived:
            _check(root, None)
            return len(archived)
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
    with tarfile.open(packed) as tar:
        return len(archived.union(tar.getnames()))


def discard(root: Path) -> int:
    """Delete the images below `root`, loose, packed or in archives; returns how many. Prompts and scores stay.

    The listings `shards/*.jsonl` go first: they say that the images are there, and a workflow that needs the images
    once more makes them again where the listings are missing. Discarding again changes nothing.

    Raises:
        DataError: the packed file or an archive is damaged.
    """
    for listing in root.glob("shards/*.jsonl"):
        listing.unlink()
    images, packed = sorted(root.rglob("*.png")), root / PACKED
    found = {name for archive in ImageStore(root).archives for name in archive.names if name.endswith(".png")}
    found.update(str(path.relative_to(root)) for path in images)
    if packed.is_file():
        found.update(_names(packed))
    for path in [*images, *archive_paths(root)]:
        path.unlink()
    packed.unlink(missing_ok=True)
    return len(found)


def _names(packed: Path) -> list[str]:
    try:
        with tarfile.open(packed) as archive:
            return archive.getnames()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{packed}: cannot read ({error}); delete it") from error


def _check(root: Path, packed: Path | None) -> None:
    listed = {row["filename"]: row["sha256"] for path in root.glob("shards/*.jsonl") for row in read_jsonl(path)}
    found = {
        name: hashlib.sha256(archive.read(name)).hexdigest()
        for archive in ImageStore(root).archives
        for name in archive.names
    }
    if packed is not None:
        with tarfile.open(packed) as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
            found |= {name: hashlib.sha256(file.read()).hexdigest() for name, file in files.items() if file is not None}
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


def unpack(root: Path, out: Path) -> int:
    """Write all images of an image folder as files into the new folder `out`, in the official layout, with the
    listings and prompts beside them; returns how many. `out` has its name when it is complete.

    Raises:
        DataError: there are no images, an archive or the packed file is damaged or holds a name that leads out of the
            folder, `out` exists or lies in the image folder, or the disk is full.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; give a folder that does not")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{out}: lies in the image folder {root}; give a folder outside of it")
    store = ImageStore(root)
    files = [path for path in root.rglob("*") if path.is_file() and not _is_left(path.relative_to(root))]
    with atomic_path(out) as folder:
        folder.mkdir()
        for path in files:
            copy_file(path, folder / path.relative_to(root), out)
        if (root / PACKED).is_file():
            _extract(root / PACKED, folder)
        for archive in store.archives:
            for name in archive.names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(archive.read(name))
        count = len(ImageStore(folder).names())
        if not count:
            raise DataError(f"{root}: no images to unpack; generate them first")
        for benchmark in available_benchmarks():
            if benchmark.thing.unpacked:
                load_part(benchmark.thing.name, "unpacked")(folder)
    return count


def _is_left(name: Path) -> bool:
    """Whether `unpack` leaves a file out: what holds the images, says that they are packed, or is unfinished."""
    archive = len(name.parts) == 2 and name.parent.name == SHARDS and name.suffix == ".zip"
    return archive or str(name) in (PACKED, "packed.json") or any(part.startswith(".") for part in name.parts)


@contextlib.contextmanager
def unpacked(root: Path) -> Iterator[Path]:
    """The folder itself, or where its images are packed a copy with all of them that is deleted afterwards; the copy's
    path ends like the folder's, in RUN/STEP/IMAGE_SET.

    Raises:
        DataError: the packed file is damaged, or there is no space for the copy.
    """
    if not (root / PACKED).is_file():
        yield root
        return
    beside = root.parent if os.access(root.parent, os.W_OK) else None  # results may be there to be read only
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unpacked-") as folder:
        copy = Path(folder).joinpath(*root.absolute().parts[-3:])
        for file in root.rglob("*"):  # without their permissions, which may forbid to add images
            if file.is_file() and file.name != PACKED:
                copy_file(file, copy / file.relative_to(root), copy)
        copy.mkdir(parents=True, exist_ok=True)
        _extract(root / PACKED, copy)
        yield copy
