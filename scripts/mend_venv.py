"""Make pip notice packages whose installation was cut short. Run by `make setup` inside a .venv without its stamp.

pip takes a package for installed once its metadata folder is there, even if files are missing or cut off. This
removes the metadata folders of such packages, so that the next `pip install` installs them again.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sysconfig
from pathlib import Path


def is_whole(distribution: importlib.metadata.Distribution) -> bool:
    """Whether every file of the package's record is there in its full size."""
    files = distribution.files
    if not files or distribution.metadata["Name"] is None:
        return False
    for file in files:
        if file.suffix == ".pyc":
            continue
        path = Path(file.locate())
        if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
            return False
    return True


def main() -> None:
    folder = Path(sysconfig.get_paths()["purelib"])
    for metadata in sorted(folder.glob("*.dist-info")):
        if metadata.name.startswith("~") or not is_whole(importlib.metadata.Distribution.at(metadata)):
            print(f"setup: {metadata.name.removesuffix('.dist-info')} was installed halfway; it is installed again")
            shutil.rmtree(metadata)
    for leftover in folder.glob("~*"):
        shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    main()
