"""Packages that tests make themselves, and environments that borrow those of this Python: nothing is downloaded."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str = "1.0", requires: str = "", module: bool = True) -> None:
    """A package as an index has it: one module that says its version, or none."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {f"{name}.py": f"VERSION = {version!r}\n"} if module else {}
    files |= {
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def only_index(folder: Path) -> dict[str, str]:
    """Variables with which pip looks in this folder, and nowhere else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder.as_uri(), "PIP_CONFIG_FILE": os.devnull}


def borrow_packages(environment: Path, used: Path, what: str = "sys.prefix") -> None:
    """Let a virtual environment import what this Python can. Each process that starts in it adds a line to `used`:
    what the expression `what` comes to there."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    note = f"import os, sys; open({str(used)!r}, 'a').write({what} + '\\n')"
    folders = dict.fromkeys(path for path in sys.path if "-packages" in path)
    (packages / "borrowed.pth").write_text("\n".join([*folders, note]) + "\n")
