"""Holds a test cluster's jobs to the memory that they asked for, by the kernel's control groups (version 1)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup/memory")
LEAST_MB = 400  # a Snakemake runs inside each job
WAIT_S = 20.0


def lacks_memory_limits() -> str:
    """Why jobs can't be held to their memory on this machine; empty if they can."""
    if not (MOUNTED / "memory.oom_control").exists():
        return f"the kernel's memory controller (control groups, version 1) is not mounted at {MOUNTED}"
    return "" if os.access(MOUNTED, os.W_OK) else f"{MOUNTED} can't be written"


@dataclass(frozen=True)
class MemoryLimits:
    """Those of the cluster in the folder `root`.

    Slurm names control groups by node and job number, so each cluster of a machine gets a branch of its own, and takes
    that for the whole tree.
    """

    root: Path

    @property
    def branch(self) -> Path:
        return MOUNTED / f"test-cluster-{hashlib.sha256(str(self.root).encode()).hexdigest()[:12]}"

    @property
    def view(self) -> Path:
        return self.root / "cgroup" / "memory"

    def set_up(self, version: tuple[int, int]) -> None:
        """Between the writing of the cluster's configuration and the start of its daemons.

        Raises:
            OSError: the machine can't.
        """
        if why := lacks_memory_limits():
            raise OSError(f"no memory limits here: {why}")
        self.view.mkdir(parents=True)
        self.branch.mkdir()
        done = subprocess.run(["mount", "--bind", self.branch, self.view], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"mount --bind {self.branch}: {done.stderr.strip()}")
        conf = self.root / "slurm.conf"
        conf.write_text(conf.read_text().replace("TaskPlugin=task/none", "TaskPlugin=task/cgroup"))
        kind = "CgroupPlugin=cgroup/v1\n" if version >= (22, 5) else ""  # older Slurm has no other
        automount = "CgroupAutomount=no\n" if version < (23, 11) else ""
        (self.root / "cgroup.conf").write_text(
            f"{kind}{automount}CgroupMountpoint={self.view.parent}\nConstrainRAMSpace=yes\nMinRAMSpace={LEAST_MB}\n"
        )

    def remove(self) -> None:
        """Once all of the cluster's processes are gone. A group is a folder; its files are the kernel's."""
        if self.view.exists():
            subprocess.run(["umount", "--lazy", self.view], capture_output=True)
            self.view.rmdir()  # an error if it is still mounted
        end = time.monotonic() + WAIT_S
        while self.branch.exists():
            try:
                for folder, _, _ in os.walk(self.branch, topdown=False):
                    os.rmdir(folder)
            except FileNotFoundError:
                pass  # Slurm's own cleaning
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
