"""The folders that jobs write to and read from: who sees them, who may write, their clock, and the room there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.totals import Totals

MOUNTS = Path("/proc/self/mountinfo")
SHARED = {
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs", "panfs", "pvfs2", "orangefs", "afs",
    "cifs", "smb3", "9p", "virtiofs", "gfs2", "ocfs2",
}  # fmt: skip
IN_MEMORY = {"tmpfs", "ramfs"}
OF_ONE_NODE = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", *IN_MEMORY}
CLOCK_TOLERANCE_S = 2.0
START = "the start of Snakemake"


def results_writable(preflight: Preflight) -> Iterator[Finding]:
    """Whether results can be written, and others can't write where jobs take code and states from."""
    place = existing(preflight.results)
    name = _shown(place)
    mine = os.access(place, os.W_OK | os.X_OK)
    if not mine:
        yield _not_writable(place, name)
    open_to_all = [path for path in _places(preflight).values() if os.path.exists(path) and _others_write(path)]
    for path in open_to_all:
        yield warning(
            f"{path}: everybody may write there", "any time: others can replace what jobs load or have made",
            f"chmod o-w {path}",
        )  # fmt: skip
    if mine and not open_to_all:
        yield fine(f"{name}: you may write there, and not everybody may")


def _not_writable(place: Path, name: str) -> Finding:
    """Why nobody, or not this user, may write in a folder; each has its own way out."""
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        told = f"{name}: its file system is read-only, for everybody"
        return problem(told, START, "start in a folder of another file system, or have this one mounted for writing")
    told = f"{name}: you may not write there"
    if place.stat().st_uid == os.geteuid():
        return problem(told, START, f"chmod u+wx {name}, or start in another folder")
    return problem(f"{told}, and it is not yours", START, "ask its owner for that, or start in another folder")


def shared_folders(preflight: Preflight) -> Iterator[Finding]:
    """Whether other nodes see the folders of a cluster's jobs, as far as the kind of file system tells."""
    if preflight.profile is None or not preflight.profile.on_slurm:
        return
    when = "the first jobs, on nodes that do not see it"
    probed = "promptecho doctor --probe looks from the nodes"
    here: dict[str, list[str]] = {}  # file system -> what lies there
    for name, path in _places(preflight).items():
        here.setdefault(file_system(existing(path)) or "unknown", []).append(f"{name} ({path})")
    for kind, names in here.items():
        told = ", ".join(names)
        if kind in IN_MEMORY:
            fix = "start in a folder that all nodes see, or name one there"
            yield problem(f"on {kind}, in the memory of this machine alone: {told}", when, fix)
        elif kind in SHARED or kind.startswith("fuse"):
            yield fine(f"on {kind}, which nodes share: {told}")
        elif kind in OF_ONE_NODE:
            yield warning(
                f"on {kind}, a disk of this machine, which other nodes see only if it is exported: {told}", when, probed
            )  # fmt: skip
        else:
            yield unchecked(f"who sees it is not known (file system {kind}): {told}", when, probed)


def clock(preflight: Preflight) -> Iterator[Finding]:
    """Whether this machine and the file system of the results have the same time, by a file that is deleted again."""
    place = existing(preflight.results)
    name = _shown(place)
    when = "any rerun: Snakemake compares times of files"
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".promptecho-doctor-") as file:
            before = time.time()
            file.write(b"clock")
            file.flush()
            os.fsync(file.fileno())
            changed, after = os.stat(file.name).st_mtime, time.time()
    except OSError as error:
        told = f"{name}: the clock of its file system: {error.strerror or error}"
        yield unchecked(told, when, "look again where you may write")
        return
    skew = min(changed - before, 0) + max(changed - after, 0)
    if abs(skew) > CLOCK_TOLERANCE_S:
        told = f"{name}: its file system is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
        yield warning(told, when, "have the clocks set (chrony, ntpd)")
    else:
        yield fine(f"{name}: the clocks of this machine and of the file system agree within {CLOCK_TOLERANCE_S:g} s")


def room(preflight: Preflight, totals: Totals) -> Iterator[Finding]:
    """Whether what will be written fits on the disk of the results."""
    place = existing(preflight.results)
    name = _shown(place)
    free, need = shutil.disk_usage(place).free, sum(totals.disk.values())
    told = f"{name}: {need / 1e9:.3g} GB will be written (an estimate), {free / 1e9:.3g} GB are free"
    if need > free:
        parts = sorted(totals.disk.items(), key=lambda item: -item[1])[:3]
        largest = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in parts)
        fix = "make room, set image_sets.NAME.keep: none, or keep fewer checkpoints (training.checkpoint_every)"
        yield problem(f"{told} (the largest: {largest})", "images or states, when the disk is full", fix)
    elif totals.disk:
        yield fine(told)


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = Path(os.path.abspath(path))
    while not os.path.exists(path):  # unlike Path.exists, it raises nothing where a folder above may not be entered
        path = path.parent
    return path


def _shown(path: Path) -> str:
    """Relative to where Snakemake starts, where it lies below that."""
    here = Path(os.path.abspath("."))
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of the file system that a path lies on; None where the kernel does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, found, length = os.path.realpath(path), None, -1
    for line in lines:
        head, dash, tail = line.partition(" - ")
        if not dash or len(fields := head.split(" ")) < 5:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= length:
            found, length = tail.split(" ")[0], len(point)
    return found


def _places(preflight: Preflight) -> dict[str, Path]:
    """What jobs on other nodes must see, by what it is."""
    places = {"results": preflight.results, "experiment": preflight.source, "Python": Path(sys.prefix)}
    if preflight.config.captions.images is not None and "caption" in preflight.stages:
        places["captions.images"] = Path(preflight.config.captions.images)
    if preflight.config.models_root is not None:
        places["models_root"] = Path(preflight.config.models_root)
    if preflight.profile is not None and preflight.profile.logs is not None:
        places["submitit-logdir"] = preflight.profile.logs
    return places


def _others_write(path: Path) -> bool:
    """Whether anybody may replace what lies there; in a sticky folder nobody can but the owner."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.EACCES:
            return False
        raise
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
