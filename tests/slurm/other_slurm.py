"""Another Slurm than this machine's, from another suite of Debian, in a folder of its own.

    python tests/slurm/other_slurm.py [--suite sid] [--folder .venv/slurm-sid]
    make test-slurm SLURM=.venv/slurm-sid        # or: PATH=.venv/slurm-sid/bin:$PATH pytest tests/slurm/...

apt fetches the packages and all that they stand on, the C library included, from the mirror that this machine uses
for its own, and checks their signatures. Nothing is installed: the packages are unpacked in FOLDER, and Slurm's
programs are told by patchelf to use the libraries beside them. `bin` there goes in front of PATH; the folder can't
be moved. The daemons of MariaDB and munge are this machine's own. FOLDER/packages.txt names each package with
its version and SHA-256: a suite moves on, and its mirror keeps only what is current.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurmdbd", "slurm-client", "slurm-wlm-basic-plugins", "patchelf")
WHERE_THERE = "slurm-wlm-mysql-plugin"  # older suites have it among the basic plugins
COMMANDS = ("sbatch", "squeue", "sacct", "sinfo", "scancel", "scontrol", "srun", "sacctmgr", "sprio")
DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "slurmstepd")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class OtherSlurmError(RuntimeError):
    """This Slurm can't be had here; one line with the reason."""


def run(*command: str | Path) -> str:
    """Standard output of a command.

    Raises:
        OtherSlurmError: it failed.
    """
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except FileNotFoundError:
        raise OtherSlurmError(f"{command[0]}: not found; this needs Debian's apt and dpkg") from None
    if done.returncode:
        end = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise OtherSlurmError(f"{Path(command[0]).name}: exit code {done.returncode}: {end}")
    return done.stdout


def mirror() -> str:
    """The address from which this machine has Debian's own packages."""
    words = ["--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    for line in run("apt-get", "indextargets", *words).splitlines():
        if line.startswith("Debian|Debian|"):
            return line.split("|")[2]
    raise OtherSlurmError("apt knows no mirror of Debian here; run apt-get update")


def fetch(suite: str, folder: Path) -> list[Path]:
    """The packages and all they stand on, as files; apt sees a machine on which nothing is installed."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "debian.sources").write_text(
        f"Types: deb\nURIs: {mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    options = [
        f"Dir::Etc::sourcelist={folder}/debian.sources", "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={folder}/lists", f"Dir::State::status={folder}/status", f"Dir::Cache={folder}/cache",
        "APT::Sandbox::User=root", "APT::Install-Recommends=false", "Acquire::Retries=3",
    ]  # fmt: skip
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    run(*apt, "update")
    more = run("apt-cache", *apt[2:], "pkgnames", WHERE_THERE).split()
    run(*apt, "install", "-y", "--download-only", *PACKAGES, *more)
    return sorted((folder / "cache/archives").glob("*.deb"))


def listing(packages: Sequence[Path]) -> str:
    """`SHA-256  NAME_VERSION_ARCHITECTURE.deb` of each, as sha256sum writes it."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in packages)


def unpack(packages: Sequence[Path], folder: Path) -> None:
    """Unpack the packages in `folder`/root and make copies of its programs in `folder`/bin that use its libraries."""
    root = folder / "root"
    root.mkdir(parents=True)
    for package in packages:
        run("dpkg-deb", "--extract", package, root)
    loader = min(root.glob("**/ld-linux-*.so.*")).resolve()
    (plugins,) = root.glob("usr/lib/*/slurm-wlm")
    # Older suites have /lib beside /usr/lib.
    found = [path for name in ("libmunge.so.2", "libc.so.6") for path in root.glob(f"**/{name}")]
    libraries = ":".join(sorted({str(path.parent.resolve()) for path in found}))
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in (*COMMANDS, *DAEMONS):
        places = [root / "usr" / where / f"{name}{end}" for where in ("bin", "sbin") for end in ("", "-wlm")]
        shutil.copy2(next(place for place in places if place.exists()), bin_folder / name)
    patchelf = [loader, "--library-path", libraries, root / "usr/bin/patchelf"]
    # Of the plugins too, which name the machine's own folder of plugins.
    rpath = ["--force-rpath", "--set-rpath", f"{libraries}:{plugins}"]
    run(*patchelf, *rpath, *plugins.glob("*.so"))
    run(*patchelf, *rpath, "--set-interpreter", loader, *(bin_folder / name for name in (*COMMANDS, *DAEMONS)))
    (folder / "plugins").symlink_to(plugins)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suite", default="sid", help="Suite of Debian (sid, trixie, ...).")
    parser.add_argument("--folder", type=Path, help="Where it goes (.venv/slurm-SUITE).")
    given = parser.parse_args(arguments)
    folder = (given.folder or Path(".venv") / f"slurm-{given.suite}").absolute()
    making = folder.with_name(folder.name + ".making")
    if folder.exists():
        print(f"{folder}: exists; remove it to make it anew", file=sys.stderr)
        return 1
    shutil.rmtree(making, ignore_errors=True)
    try:
        packages = fetch(given.suite, making)
        unpack(packages, folder)
        (folder / "packages.txt").write_text(listing(packages))
        version = run(folder / "bin/slurmctld", "-V").strip()
    except (OtherSlurmError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"NO OTHER SLURM: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(f"{version} is in {folder}; put {folder / 'bin'} in front of PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
