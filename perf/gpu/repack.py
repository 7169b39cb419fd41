"""Compress wheels again, in place, so that they are faster to take along: LZMA in place of deflate.

    python perf/gpu/repack.py wheels

A wheel stays a wheel with the same files, and pip can install it. Only wheels with compiled code become much smaller
(NumPy by a third), so all others stay as they are. This script needs Python alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from pathlib import Path

LEAST = 1_000_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheels", type=Path, help="Folder of wheels.")
    arguments = parser.parse_args()
    files = sorted(arguments.wheels.glob("*.whl"))
    if not files:
        sys.exit(f"repack.py: {arguments.wheels}: no wheels in it")
    before = sum(file.stat().st_size for file in files)
    for file in files:
        if not file.name.endswith("-any.whl") and file.stat().st_size > LEAST:
            repack(file)
    after = sum(file.stat().st_size for file in files)
    print(f"{len(files)} wheels: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")


def repack(wheel: Path) -> None:
    """Replace `wheel` by one with the same files, if that is smaller."""
    other = wheel.with_name(f"{wheel.name}.part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_LZMA) as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry), zipfile.ZIP_LZMA)
    if other.stat().st_size < wheel.stat().st_size:
        os.replace(other, wheel)
    else:
        other.unlink()


if __name__ == "__main__":
    main()
