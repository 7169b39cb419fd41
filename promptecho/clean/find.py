"""What in `results/E` is no longer needed, by kind. Nothing is deleted here, and no link is followed."""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.benchmarks.packing import PACKED
from promptecho.config.clean import CleanSection
from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError

KINDS = {
    "work": "work in progress of finished jobs",
    "not_finite": "dumps of numbers that were not finite",
    "restored_images": "images that were unpacked",
    "half_written": "half-written files",
    "logs": "old logs",
    "prompt_cache": "embeddings of prompts",
    "replaced": "results that were replaced",
}
_TRAINED = ("adapter", "state", "metrics.jsonl")
_DUMP = "not-finite-"
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_REPLACED = re.compile(rf".+{re.escape(REPLACED)}(?:[0-9a-f]{{16}}|unknown)(?:-\d+)?(?:\.\d+\.\w+)?")
_NAMED = re.compile(rf"[a-z0-9][a-z0-9._-]*{re.escape(REPLACED)}(?:[0-9a-f]{{16}}|unknown)(?:-\d+)?")
_UNPACKED = (".restoring-", ".unpacked-")
# What `--config retrain=` and captions that are made again leave (config/reruns.py), below results/E.
_ASIDE: tuple[str, ...] = ("captions", "work/train/*", "work/generate_shard/*", "images/*", "scores/*/*", "answers/*/*")
_ASIDE += ("guards/*/*/*", "tensorboard/*", "trackers/*/*", "runs/*", "logs/train/*", "timings/train/*")
_DAY = 86400


@dataclass
class Removable:
    """`paths`: kind -> files and folders that may go. `links`: links on the way to some, which are not followed.
    `named`: replaced results that stay -> the configuration that names them."""

    paths: dict[str, list[Path]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    links: list[Path] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)


def find(results: Path, policy: CleanSection, experiments: Path, now: float | None = None) -> Removable:
    """What the policy allows to delete in `results/E`.

    Args:
        experiments: folder of the experiments' files.

    Raises:
        DataError: an `images.tar` is damaged, or a configuration cannot be read.
    """
    found = Removable()
    if results.is_symlink():
        found.links.append(results)
        return found
    finders = {
        "work": _work(results) if policy.work else (),
        "not_finite": _dumps(results) if policy.not_finite else (),
        "restored_images": _restored(results) if policy.restored_images else (),
        "half_written": _half_written(results) if policy.half_written else (),
        "logs": _logs(results, policy.logs_days, now) if policy.logs_days is not None else (),
        "prompt_cache": [results / "work/prompts"] if policy.prompt_cache else (),
        "replaced": _replaced(results, experiments, found) if policy.replaced else (),
    }
    taken: set[Path] = set()
    for kind, paths in reversed(finders.items()):  # what was replaced is deleted as a whole, with the work in it
        for path in sorted(set(paths)):
            if taken.isdisjoint([path, *path.parents]) and os.path.lexists(path) and _reached(path, results, found):
                found.paths[kind].append(path)
        taken.update(found.paths[kind])
    return found


def _reached(path: Path, results: Path, found: Removable) -> bool:
    """Whether no folder on the way to it is a link."""
    for folder in [path, *path.parents]:
        if folder == results:
            return True
        if folder.is_symlink() and (folder != path or path.is_dir()):
            if folder not in found.links:
                found.links.append(folder)
            return False
    return False


def _work(results: Path) -> Iterator[Path]:
    """Folders below work/RULE/ of jobs that have all their outputs."""
    for folder in results.glob("work/caption_shard/*/*"):
        if (results / f"captions/shards/{folder.parent.name}.h5").is_file():
            yield folder
    for folder in results.glob("work/generate_shard/*/*/*/*/*"):
        run, step, image_set, shard = folder.parts[-5:-1]
        images = results / "images" / run / step / image_set
        if (images / f"shards/{shard}.jsonl").is_file() or _newer(images / "packed.json", folder):
            yield folder
    for folder in _trained(results):
        entries = list(folder.iterdir()) if folder.is_dir() else []
        dumps = [entry for entry in entries if entry.name.startswith(_DUMP)]
        yield from (entry for entry in entries if entry not in dumps) if dumps else [folder]


def _newer(packed: Path, folder: Path) -> bool:
    """Whether the images were deleted (`keep: none`, which deletes their listings too) after the work in `folder`;
    older, packed.json is from before they were started again."""
    if not packed.is_file():
        return False
    try:
        times = [(Path(place) / name).lstat().st_mtime for place, _, names in os.walk(folder) for name in names]
        return packed.stat().st_mtime >= max(times, default=0.0)
    except FileNotFoundError:  # a job is at work in it
        return False


def _dumps(results: Path) -> Iterator[Path]:
    for folder in _trained(results):
        yield from folder.glob(f"{_DUMP}*")


def _trained(results: Path) -> Iterator[Path]:
    """Work folders of segments whose checkpoint is finished."""
    for folder in results.glob("work/train/*/*/*"):
        run, step = folder.parts[-3:-1]
        if all((results / "runs" / run / step / name).exists() for name in _TRAINED):
            yield folder


def _restored(results: Path) -> Iterator[Path]:
    for begin in _UNPACKED:
        yield from results.glob(f"images/*/*/{begin}*")
        yield from results.glob(f"images/*/*/*/{begin}*")
    for packed in results.glob(f"images/*/*/*/{PACKED}"):
        yield from _twice(packed)


def _twice(packed: Path) -> Iterator[Path]:
    """Loose images that the packed file holds as well, with the same bytes."""
    loose = [path for path in packed.parent.rglob("*.png") if not any(part.startswith(".") for part in path.parts)]
    if not loose:
        return
    try:
        with tarfile.open(packed) as archive:
            for path in loose:
                try:
                    entry = archive.extractfile(str(path.relative_to(packed.parent)))
                except KeyError:
                    continue
                if entry is not None and entry.read() == path.read_bytes():
                    yield path
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{packed}: cannot read ({error}); delete it and generate the images again") from None


def _half_written(results: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(results):  # follows no links
        for name in [*folders, *files]:
            if _HALF_WRITTEN.fullmatch(name):
                yield Path(folder) / name
        paid = {"judges"} if Path(folder) == results else set()
        folders[:] = [name for name in folders if name not in paid and not _HALF_WRITTEN.fullmatch(name)]


def _logs(results: Path, days: int, now: float | None) -> Iterator[Path]:
    before = (time.time() if now is None else now) - days * _DAY
    for folder, _, files in os.walk(results / "logs"):
        for name in files:
            path = Path(folder) / name
            with contextlib.suppress(FileNotFoundError):  # a running job has just deleted it
                if path.lstat().st_mtime < before:
                    yield path


def _replaced(results: Path, experiments: Path, found: Removable) -> Iterator[Path]:
    users = _users(experiments)
    for pattern in _ASIDE:
        for path in results.glob(f"{pattern}{REPLACED}*"):
            if not _REPLACED.fullmatch(path.name):
                continue
            name = next((name for name in users if f"{path.name}.".startswith(f"{name}.")), None)
            if name is None:
                yield path
            else:
                found.named[str(path)] = users[name]


def _users(experiments: Path) -> dict[str, str]:
    """Names of replaced results that an experiment uses, as an adapter say -> its configuration; also one that was
    given on the command line and is known by its resolved configuration alone."""
    files = [*experiments.glob("*.yaml"), *Path("results").glob("*/config/*.yaml")]
    try:
        texts = {str(file): file.read_text(encoding="utf-8", errors="replace") for file in sorted(files, reverse=True)}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}): it may name replaced results") from None
    return {name: file for file, text in texts.items() for name in _NAMED.findall(text)}
