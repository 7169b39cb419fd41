"""Commands as processes of their own, and ranks of them, forked from one that has imported everything already.

Importing torch and the libraries around it takes five to ten seconds of a core, in every process anew. What is tested
here is what comes after that. Where imports or the launcher itself are tested, a new interpreter and torchrun are used.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path

UNIT = str(Path(__file__).resolve().parent)
# Read when a process begins, so they are the same for all.
FIXED = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Ranks:
    """`n` processes with torchrun's environment; `variables` go over it.

    As with torchrun, the first that fails ends the others, or else (`each`) every one has to find its own way out.
    """

    n: int
    variables: dict[str, int] = field(default_factory=dict)
    each: bool = False


def ranks(n: int, *, each: bool = False, **variables: int) -> Ranks:
    return Ranks(n, variables, each)


def start(arguments: list[str], of: Ranks | None = None, *, script: Path | None = None) -> Started:
    """Begin `promptecho ARGUMENTS`, or a script with them: one process, or some ranks of it."""
    return Started([str(word) for word in arguments], of, script)


class Started:
    """As subprocess.Popen with pipes for stdout and stderr, but that nobody waits for what its children still write."""

    def __init__(self, arguments: list[str], of: Ranks | None, script: Path | None):
        self._output = [tempfile.NamedTemporaryFile("r", errors="replace") for _ in "oe"]  # noqa: SIM115
        files = [file.name for file in self._output]
        environ = {**os.environ, **FIXED}
        self._process = _server().Process(
            target=_become, args=(arguments, of, script and str(script), environ, os.getcwd(), files), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("promptecho", timeout)
        for file in self._output:
            file.seek(0)
        return tuple(file.read() for file in self._output)

    def said(self) -> str:
        """Its stderr so far."""
        return Path(self._output[1].name).read_text(errors="replace")

    def wait(self, timeout: float | None = None) -> int:
        self.communicate(timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def ranks(self) -> list[int]:
        """Process ids of the ranks that are still there, in their order."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def ended(arguments: list[str], of: Ranks | None = None, *, script: Path | None = None, code: int = 0):
    """Run to the end, check the exit code; returns stdout and stderr."""
    process = start(arguments, of, script=script)
    stdout, stderr = process.communicate()
    assert process.returncode == code, f"exit code {process.returncode}:\n{stderr[-4000:]}"
    return stdout, stderr


def run(arguments: list[str], of: Ranks | None = None, *, script: Path | None = None, code: int = 0) -> str:
    """The same, for its stderr."""
    return ended(arguments, of, script=script, code=code)[1]


def _server():
    """The process that forks, one for each process of pytest; begun when it is first asked for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    before = dict(os.environ)
    os.environ.update(FIXED, PYTHONPATH=os.pathsep.join([UNIT, *filter(None, [before.get("PYTHONPATH")])]))
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _become(
    arguments: list[str], of: Ranks | None, script: str | None, environ: dict[str, str], folder: str, files: list[str]
) -> None:
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream)
    if "preloaded" not in sys.modules:
        os.write(2, b"preloaded.py cannot be imported: python tests/unit/preloaded.py says why\n")
        os._exit(1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    code = run_single(arguments, script) if of is None else _launch(of, arguments, script)
    _leave(code)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_single(arguments: list[str], script: str | None = None) -> int:
    """Be one such process, as far as its exit code."""
    try:
        sys.argv = [script or "promptecho", *arguments]
        if script is not None:
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")
        else:
            from promptecho.cli import main

            main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def environment(n: int, rank: int, port: int, **variables: int) -> dict[str, str]:
    """What torchrun gives a rank of a machine of its own."""
    found = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **variables}
    found |= {"RANK": rank, "LOCAL_RANK": rank % found["LOCAL_WORLD_SIZE"]}
    return {name: str(value) for name, value in found.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _launch(of: Ranks, arguments: list[str], script: str | None) -> int:
    port, children = free_port(), []
    for rank in range(of.n):
        child = os.fork()
        if child == 0:
            os.environ.update(environment(of.n, rank, port, **of.variables))
            _leave(run_single(arguments, script))
        children.append(child)
    failed = False
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not failed and not of.each:
            for other in children:
                os.kill(other, signal.SIGTERM)
        failed = failed or bool(status)
    return int(failed)
