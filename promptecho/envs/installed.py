"""Whether this Python has the packages that an environment's file lists. It imports nothing that a stage's own
environment may lack."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from promptecho.envs.spec import pinned


def compare(file: Path) -> tuple[list[str], list[str]]:
    """Packages of an environment file that are not installed here, and those of another version than it lists."""
    absent, other = [], []
    for name, version in pinned(file).items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(f"{name}=={version}" if version else name)
            continue
        if version and here.partition("+")[0] != version:  # a build for CUDA is the same version
            other.append(f"{name} {here} instead of {version}")
    return absent, other
