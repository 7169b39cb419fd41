"""Which files of an experiment may be deleted, how large they are, and their deletion."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptecho.clean.at_work import at_work
from promptecho.clean.find import KINDS, find
from promptecho.config.clean import CleanSection
from promptecho.errors import DataError, listed


@dataclass
class KindTotal:
    """The files of one kind."""

    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)


@dataclass
class Cleaning:
    """What may be deleted of `results/E`. `links`: links on the way to some of it, which are not followed. `named`:
    replaced results that stay -> the configuration that names them. `refused`: why nothing may be deleted now; None
    where it may."""

    experiment: str
    kinds: dict[str, KindTotal]
    links: list[str]
    named: dict[str, str]
    refused: str | None
    deleted: bool = False

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.kinds.values())

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)

    def delete(self) -> None:
        """Delete it, and the folders of work/ and logs/ that become empty by this; links themselves, never what they
        lead to.

        Raises:
            DataError: somebody works on the results; or some could not be deleted: names all of them, the others are
                gone.
        """
        results = Path("results") / self.experiment
        self.refused = at_work(Path.cwd(), self.experiment)  # once more: to find it may have taken a while
        if self.refused:
            raise DataError(f"{results}: {self.refused}; nothing of it was deleted")
        problems = []
        for path in (Path(path) for share in self.kinds.values() for path in share.paths):
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                problems.append(f"{error.filename or path}: cannot be deleted ({error.strerror or error})")
                continue
            _remove_empty(path.parent, results)
        if problems:
            raise DataError(listed(problems))
        self.deleted = True


def look(results: Path, policy: CleanSection, experiments: Path, now: float | None = None) -> Cleaning:
    """What the policy allows to delete of `results/E`, a path from the folder in which Snakemake is started, which is
    this one.

    Args:
        experiments: folder of the experiments' files.

    Raises:
        DataError: an `images.tar` is damaged, or a configuration cannot be read.
    """
    found, kinds = find(results, policy, experiments, now), {kind: KindTotal() for kind in KINDS}
    for kind, paths in found.paths.items():
        for path in paths:
            files, size = measure(path)
            kinds[kind].files += files
            kinds[kind].bytes += size
            kinds[kind].paths.append(str(path))
    refused = at_work(Path.cwd(), results.name)
    return Cleaning(results.name, kinds, [str(link) for link in found.links], found.named, refused)


def measure(path: Path) -> tuple[int, int]:
    """Files and bytes below a path; a link counts itself, and a file that a job deletes meanwhile nothing."""
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    sizes = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(file.lstat().st_size)
    return len(sizes), sum(sizes)


def _remove_empty(folder: Path, results: Path) -> None:
    while any(folder.is_relative_to(results / name) for name in ("work", "logs")):
        with contextlib.suppress(OSError):  # there is more in it
            folder.rmdir()
        if folder.exists():
            return
        folder = folder.parent
