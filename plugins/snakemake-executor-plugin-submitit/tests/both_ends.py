"""Build this package, and test it alone with the lowest and with the highest versions that it allows.

    python tests/both_ends.py [--keep FOLDER]

An sdist is built, a wheel from it, and the wheel is installed into two fresh virtual environments: with the lower bound
of every range in pyproject.toml, and with the newest versions that the ranges and the package index have. The tests of
the sdist run in each, away from the checkout. Needs a package index; takes some minutes. Ends with the table of
versions for README.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
RANGE = re.compile(r"([\w-]+)>=([\w.]+),<[\w.]+")
SHOW = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
ENDS = ("lowest", "highest")


def lower_bounds() -> dict[str, str]:
    """The lower bound of every requirement, by name."""
    ranges = [RANGE.fullmatch(requirement) for requirement in PROJECT["dependencies"]]
    assert all(ranges), f"each dependency is a range NAME>=LOW,<HIGH: {PROJECT['dependencies']}"
    return {match[1]: match[2] for match in ranges}


def run(*command: str | Path, cwd: Path, quiet: bool = False) -> str:
    """Run a command without what this shell has for Python; its output where `quiet`.

    Raises:
        SystemExit: it failed.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    print(f"+ {' '.join(map(str, command))}", flush=True)
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, text=True, check=False,
        stdout=subprocess.PIPE if quiet else None,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"both_ends: {' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout or ''}")
    return done.stdout or ""


def environment(folder: Path) -> Path:
    """A fresh virtual environment; its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel, and the unpacked sdist that it was built from."""
    python = environment(folder / "build")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".hypothesis")
    source = shutil.copytree(PACKAGE, folder / "source", ignore=ignored)
    run(python, "-m", "pip", "install", "-q", "build", cwd=folder)
    run(python, "-m", "build", "--outdir", folder / "dist", source, cwd=folder, quiet=True)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (unpacked,) = (folder / "sdist").iterdir()
    return wheel, unpacked


def test(end: str, folder: Path, wheel: Path, sdist: Path) -> list[str]:
    """Install and test at one end; the versions, in the order of the requirements."""
    here = folder / end
    here.mkdir()
    python = environment(here / "venv")
    constraints = here / "constraints.txt"
    bounds = lower_bounds()
    constraints.write_text("".join(f"{name}=={low}\n" for name, low in bounds.items()) if end == "lowest" else "")
    run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[test]", cwd=here)
    for name in ("tests", "docs"):
        shutil.copytree(sdist / name, here / name)
    for name in ("pyproject.toml", "README.md"):  # not the package itself: what is tested is what was installed
        shutil.copy(sdist / name, here)
    run(python, "-m", "pip", "check", cwd=here)
    run(python, "-m", "pytest", "-q", "tests", cwd=here)
    version = ".".join(map(str, sys.version_info[:3]))
    return [version, *run(python, "-c", SHOW, *bounds, cwd=here, quiet=True).split()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Test this package with both ends of its ranges.")
    parser.add_argument("--keep", type=Path, help="a new folder for environments and packages; else a temporary one")
    parser.add_argument("--only", choices=ENDS, help="one end")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep.absolute() if given.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=bool(not given.keep))
        wheel, sdist = build(folder)
        ends = [given.only] if given.only else ENDS
        columns = [test(end, folder, wheel, sdist) for end in ends]
    print(f"\n| | {' | '.join(ends)} |\n| --- |{' --- |' * len(ends)}")
    for row in zip(["Python", *lower_bounds()], *columns, strict=True):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
