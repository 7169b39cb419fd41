"""A folder like the one in which Snakemake is started, to plan in it without writing to the real one.

Even a dry run keeps records: resolved configurations, hashes of inputs, Snakemake's own. In the shadow these are
copies; everything else is a link to the original.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from promptecho.errors import DataError

RECORDS = ".snakemake"
# Parts of .snakemake that a plan does not read.
_LEFT_OUT = ("conda", "conda-archive", "singularity", "log", "locks", "shadow", "submitit", "auxiliary", "source-cache")
_HASHES = "file_hashes.json"
_LEVELS = 3  # as far as relative paths lead upwards


@contextlib.contextmanager
def shadow_of(root: Path) -> Iterator[Path]:
    """The shadow of `root`, deleted afterwards.

    Raises:
        DataError: records cannot be read, or there is no room for the copies.
    """
    with tempfile.TemporaryDirectory(prefix="promptecho-upgrade-") as folder:
        shadow = Path(folder).joinpath(*root.resolve().parts[1:])
        try:
            shadow.mkdir(parents=True)
            _surround(root.resolve(), Path(folder))
            _cast(root, shadow)
        except shutil.Error as error:  # of a folder: (original, copy, why) of every file
            _, copy, why = error.args[0][0]
            raise DataError(f"{copy}: cannot be written or read ({why}); TMPDIR names another folder") from None
        except OSError as error:
            raise DataError(f"{error.filename or root}: cannot be read or copied ({error.strerror or error})") from None
        yield shadow


def _surround(root: Path, folder: Path) -> None:
    """Links to what lies beside the folder and those above it: a configuration may name `../photos`."""
    for parent in list(root.parents)[:_LEVELS]:
        own = folder.joinpath(*parent.parts[1:])
        with contextlib.suppress(PermissionError):  # a folder that may be entered and not read
            for entry in parent.iterdir():
                if not os.path.lexists(own / entry.name):
                    (own / entry.name).symlink_to(entry)


def _cast(root: Path, shadow: Path) -> None:
    for entry in sorted(root.iterdir()):
        if entry.name not in ("results", RECORDS, "promptecho"):  # the package is found on Python's path
            _link(entry, shadow / entry.name)
    if (root / RECORDS).is_dir():
        ignored = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(root / RECORDS, shadow / RECORDS, ignore=ignored, copy_function=shutil.copyfile)
    (shadow / "results").mkdir()
    results = root / "results"
    for experiment in sorted(results.iterdir()) if results.is_dir() else ():
        if not experiment.is_dir():
            continue
        own = shadow / "results" / experiment.name
        own.mkdir()
        for entry in sorted(experiment.iterdir()):
            if entry.name == "config" and entry.is_dir():
                shutil.copytree(entry, own / entry.name)
            elif entry.name != "work":
                _link(entry, own / entry.name)
        (own / "work").mkdir()
        if (experiment / "work" / _HASHES).is_file():
            shutil.copyfile(experiment / "work" / _HASHES, own / "work" / _HASHES)


def _link(original: Path, link: Path) -> None:
    """A link as old as what it leads to: Snakemake looks at the times of both."""
    link.symlink_to(original.resolve())
    with contextlib.suppress(OSError):  # of a link that leads to no file
        times = original.stat()
        os.utime(link, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)
