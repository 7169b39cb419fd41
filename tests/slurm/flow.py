"""A small workflow on the test cluster, run by real Snakemake processes that tests start, kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from cluster import Cluster
from submitit.slurm.slurm import read_job_id

SNAKEMAKE = [str(Path(sys.executable).parent / "snakemake")]
COUNTED = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr")
# Seconds that only a failure takes: far longer than anything lasts on a busy machine.
PATIENCE_S = 600.0


class Flow:
    """A workflow folder. Slurm's commands are reached through one-line scripts that note each call."""

    def __init__(self, folder: Path, cluster: Cluster, snakefile: str, prefix: str):
        self.folder, self.cluster, self.prefix = folder, cluster, prefix
        (folder / "Snakefile").write_text(textwrap.dedent(snakefile))
        self.calls_file = folder / "calls.txt"
        wrappers = folder / "bin"
        wrappers.mkdir()
        for name in COUNTED:
            real = shutil.which(name, path=cluster.environment["PATH"])
            self.wrap(name, f'echo {name} "$@" >> {quote(str(self.calls_file))}\nexec {real} "$@"')
        python = Path(sys.executable).parent
        self.environment = {**cluster.environment, "PATH": f"{wrappers}:{python}:{cluster.environment['PATH']}"}
        self.environment["HOME"] = str(folder)  # no user profile, no source cache of somebody else

    def wrap(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        temporary = path.with_suffix(".tmp")  # a script that runs must not change under its shell
        temporary.write_text(f"#!/bin/bash\n{script}\n")
        temporary.chmod(0o755)
        temporary.replace(path)

    def real(self, name: str) -> str:
        return str(shutil.which(name, path=self.cluster.environment["PATH"]))

    def command(self, *arguments: str) -> list[str]:
        return [
            *SNAKEMAKE, "--executor", "submitit", "--jobs", "100", "--seconds-between-status-checks", "1",
            "--latency-wait", "3", "--submitit-status-interval", "2", "--submitit-jobname-prefix", self.prefix,
            "--rerun-incomplete", "--keep-going", *arguments,
        ]  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen:
        """Snakemake in the background, in a process group of its own; its output goes to `log`."""
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=sink, stderr=sink, start_new_session=True, preexec_fn=heed_interrupts,
            )  # fmt: skip

    def run(self, *arguments: str, timeout: float = PATIENCE_S) -> tuple[int, str]:
        """Exit code and output of Snakemake."""
        begin = len(self.text)
        code = self.end(self.start(*arguments), timeout)
        return code, self.text[begin:]

    def end(self, process: subprocess.Popen, timeout: float = PATIENCE_S) -> int:
        """Snakemake's exit code, once it has ended."""
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise AssertionError(f"Snakemake did not end within {timeout:.0f} s:\n{self.text[-9000:]}") from None

    def kill(self, process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
        """Signal Snakemake alone, wait for it, and take the lock away that SIGKILL leaves."""
        os.kill(process.pid, number)
        process.wait(PATIENCE_S)
        if number == signal.SIGKILL:
            self.unlock()

    def unlock(self) -> None:
        command = [*SNAKEMAKE, "--unlock"]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, capture_output=True)

    @property
    def log(self) -> Path:
        return self.folder / "snakemake.log"

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def calls(self, name: str) -> list[str]:
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if line.split()[0] == name]

    def queue(self) -> list[tuple[str, str, str]]:
        """(id, name, state) of this workflow's jobs that are not over."""
        text = self.cluster.run("squeue", "-h", "-r", "-o", "%i|%j|%T")
        rows = [tuple(line.split("|")) for line in text.splitlines()]
        return [row for row in rows if row[1].startswith(self.prefix + ".")]

    def states(self) -> list[str]:
        return [state for _, _, state in self.queue()]

    def submitted(self) -> list[str]:
        """Ids of all jobs and array tasks that this workflow has ever submitted, by accounting."""
        return self.submitted_as(self.prefix + ".")

    def submitted_as(self, begin: str) -> list[str]:
        """The same for names that begin so."""
        text = self.cluster.run("sacct", "-X", "-n", "-P", "-S", "2000-01-01", "-o", "JobID,JobName")
        rows = [line.split("|") for line in text.splitlines()]
        return [one for job_id, name in rows if name.startswith(begin) for one in _tasks(job_id)]

    def expect_submitted(self, n: int) -> None:
        """Exactly `n` jobs and array tasks; accounting hears of them a moment after they are submitted."""
        self.wait(lambda: len(self.submitted()) >= n, f"{n} submitted jobs in accounting")
        assert len(self.submitted()) == n, self.submitted()

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE_S) -> None:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout:.0f} s for {what}:\n{self.text[-5000:]}\n{self.queue()}")
            time.sleep(0.2)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def go(self) -> None:
        """Let jobs end that wait for the file `go`."""
        (self.folder / "go").touch()


def heed_interrupts() -> None:
    """Where the tests run in a shell's background, they and their children inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _tasks(job_id: str) -> list[str]:
    """`7_[2-4,6]`, as sacct shows the part of an array that has not begun, in single ids."""
    found = []
    for main, *span in read_job_id(job_id):
        numbers = range(int(span[0]), int(span[-1]) + 1) if span else [None]
        found += [main if number is None else f"{main}_{number}" for number in numbers]
    return found
