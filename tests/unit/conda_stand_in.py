"""A stand-in for the command `conda`, for tests alone: it is not conda, and solves and downloads nothing.

It answers what Snakemake 9.27 asks (deployment/conda.py): `conda info --json`, `conda --version`, `conda config --get
channel_priority --json`, `conda env create --file F --prefix P`, `conda clean`, and has the `bin/activate` that is
sourced before each command. Its only channel is the Python that runs the tests: an environment is a virtual one to
which that Python's packages are linked, after each pin of the file was compared with the version there.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from own_wheels import borrow_packages

ACTIVATE = """\
unset PYTHONPATH  # as Snakemake does
export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"
"""


def install(folder: Path, used: Path) -> Path:
    """Put the stand-in into `folder`, and return the folder that belongs on PATH. Every Python of an environment that
    it makes writes its prefix to `used`."""
    (folder / "bin").mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), str(used)]
    (folder / "bin/conda").write_text(f'#!/bin/bash\nexec {shlex.join(command)} "$@"\n')
    (folder / "bin/conda").chmod(0o755)
    (folder / "bin/activate").write_text(ACTIVATE)
    return folder / "bin"


def create(file: Path, prefix: Path, used: Path) -> None:
    """`conda env create`."""
    (pip,) = [part["pip"] for part in yaml.safe_load(file.read_text())["dependencies"] if isinstance(part, dict)]
    for pin in pip:
        name, _, version = pin.partition("==")
        if importlib.metadata.version(name).partition("+")[0] != version:
            sys.exit(f"PackagesNotFoundError: {pin} is not in the channel")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    borrow_packages(prefix, used)


def main() -> None:
    folder, used, *arguments = sys.argv[1:]
    line = " ".join(arguments)
    if line == "info --json":
        print(json.dumps({"conda_prefix": folder, "platform": "linux-64"}))
    elif line == "--version":
        print("conda 25.1.1")
    elif line == "config --get channel_priority --json":
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif line == "clean -y --tarballs":  # after each environment; there are none
        pass
    elif re.fullmatch(r"env create --quiet --no-default-packages --file .* --prefix .*", line):
        create(
            Path(arguments[arguments.index("--file") + 1]), Path(arguments[arguments.index("--prefix") + 1]), Path(used)
        )
    else:
        sys.exit(f"conda's stand-in does not know: {line}")


if __name__ == "__main__":
    main()
