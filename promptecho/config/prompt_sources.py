"""Where official prompt sets come from: pinned commits, hashes, licences, citations. Each is said by its benchmark."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class SourceFile:
    """One official file. `name` is its place in the set's folder, `path` its place in the repository.

    It is pinned by its SHA-256, or by git's own hash of it where no more is known, or by its commit alone.
    `as_text`: the SHA-256 is that of the text with \\n as its line ends, whichever the file has.
    """

    name: str
    path: str
    sha256: str | None = None
    git_blob: str | None = None
    as_text: bool = False

    @property
    def pinned(self) -> bool:
        """Whether a hash of it is known."""
        return self.sha256 is not None or self.git_blob is not None

    def problem(self, content: bytes) -> str | None:
        """Why `content` is not this file; None if it is."""
        compute_sha256 = sha256_of_text if self.as_text else sha256
        checks = (("SHA-256", self.sha256, compute_sha256), ("git blob id", self.git_blob, git_blob_id))
        for what, expected, compute in checks:
            if expected is not None and compute(content) != expected:
                return f"its {what} is {compute(content)}, not {expected}"
        return None


@dataclass(frozen=True, kw_only=True)
class Source:
    """One official prompt set.

    Args:
        name: of the set, and of its folder below data/benchmarks.
        repository: owner/name on GitHub.
        folder: where its files are in the repository.
        licence: None: the repository states none.
        prompts: the files that image sets name as their prompts, and how many prompts each holds, for plans; None
            where nobody has counted.
        mirror: the set's folder in a mirror.
        sums: file that lists the official files with their SHA-256, in the format of `sha256sum`.
        git_blobs: git's own hashes of files whose SHA-256 is not known.
        by_commit: files of which no hash is known: the commit in their address says which they are, and `make` should
            look whether they can be.
        as_text: the sums are those of the texts with \\n as their line ends, whichever the files have.
        make: `module:object`, called with the set's folder once all files are there; it makes those of `prompts` that
            are no official files themselves.
        id_column: for a CSV: the column that tells prompts apart.
    """

    name: str
    title: str
    repository: str
    commit: str
    folder: str = ""
    licence: str | None
    citation: str
    prompts: Mapping[str, int | None]
    mirror: str
    sums: Path | None = None
    git_blobs: Mapping[str, str] = field(default_factory=dict)
    by_commit: tuple[str, ...] = ()
    as_text: bool = False
    make: str = ""
    id_column: str = ""

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The official files, in a fixed order."""
        prefix = f"{self.folder}/" if self.folder else ""
        sums = {} if self.sums is None else sha256_sums(self.sums)
        names = sorted({*sums, *self.git_blobs, *self.by_commit})
        return tuple(
            SourceFile(name, prefix + name, sums.get(name), self.git_blobs.get(name), self.as_text) for name in names
        )

    @property
    def url(self) -> str:
        """The repository's page at the pinned commit."""
        return f"https://github.com/{self.repository}/tree/{self.commit}"


def sha256(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_text(content: bytes) -> str:
    """Hex SHA-256 of a text with \\n as its line ends."""
    return sha256(content.replace(b"\r\n", b"\n"))


def git_blob_id(content: bytes) -> str:
    """The hash under which git stores a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@functools.cache
def sha256_sums(path: Path) -> dict[str, str]:
    """SHA-256 of every file that `path` lists, by name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: value for value, name in (line.split("  ", 1) for line in lines)}
