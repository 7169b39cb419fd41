"""Make a virtual environment from an environment file: whole under its name, or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from promptecho.envs.built import BUILDS, RECORD, BuiltEnv, build_folder, installed, look_at
from promptecho.envs.spec import EnvSpec
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import read_json, write_json

_TAKEN_UP = re.compile(r" *(?:Collecting|Processing) (?:.*/)?(\S+)")
_NAMED = (
    re.compile(r"No matching distribution found for ([A-Za-z0-9][^ ;,]*)"),
    re.compile(r"(?:Failed building wheel for|Failed to build|failed-wheel-build-for-install) ([\w.-]+)"),
    re.compile(r"Cannot install ([^ ]+)"),
    re.compile(r"^([A-Za-z0-9][\w.-]*==\S+) from \S+.*:$"),  # of another hash than is wanted
)
Tell = Callable[[str], None]


class EnvBuildError(PromptEchoError):
    """An environment could not be built; names it, the package where one is at fault, and the log."""


def build(spec: EnvSpec, folder: Path, python: str | None, tell: Tell, exact: bool = False) -> BuiltEnv:
    """Build an environment in `folder`, unless it is there already. One that is damaged stays, and another is built
    beside it: jobs may run with it on a machine that sees more of it.

    Args:
        python: the interpreter, of the version that the file names. None: this one, or `pythonX.Y` of PATH.
        tell: is given each line of progress.
        exact: take the very files of the environment's lock file, by their hashes.

    Raises:
        EnvBuildError: it could not be built; the link to an earlier build, if there is one, stays.
        DataError: the folder is not writable, or another process builds the same environment; with `exact`, there is
            no lock file, or it has other versions than the file and the constraints.
    """
    if exact:
        _refuse_others(spec, spec.locked, constrained=True)
    standing = look_at(folder, spec, exact)
    if standing.state == "current" and _runs(folder / spec.name / "bin/python"):
        tell(f"{spec.name}: is there and current: {folder / spec.name}")
        return standing
    link, place = folder / spec.name, _place(folder, spec, exact)
    if link.exists() and not link.is_symlink():
        raise DataError(f"{link}: is not one of this command's environments; move it away, or choose another folder")
    with _alone(place):
        if not (place / RECORD).is_file():  # else only the link is missing, or leads to another build
            _make(spec, place, _interpreter(spec, python), tell, exact)
        temporary = folder / f".{spec.name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path(BUILDS) / place.name)
        os.replace(temporary, link)
    done = look_at(folder, spec, exact)
    if done.state != "current":
        raise EnvBuildError(f"environment {spec.name}: {done.problem}; remove {place} and build it again")
    size, packages = done.record["bytes"] / 1e9, len(done.record["packages"])
    tell(f"{spec.name}: {link}: {packages} packages, {size:.2f} GB; {_free(folder)}")
    return done


def _place(folder: Path, spec: EnvSpec, exact: bool) -> Path:
    """Where the environment lies whole, or is to be made: never where a finished one lies that is damaged."""
    in_use = (folder / spec.name).resolve()
    places = (build_folder(folder, spec, exact, number) for number in itertools.count(1))
    return next(one for one in places if _is_whole(one) or not ((one / RECORD).exists() or one.resolve() == in_use))


def _is_whole(place: Path) -> bool:
    with contextlib.suppress(DataError):
        return {"digest", "packages", "bytes"} <= set(read_json(place / RECORD)) and _runs(place / "bin/python")
    return False


def _runs(python: Path) -> bool:
    """Whether an interpreter works on this machine: it is there, and so are its libraries."""
    with contextlib.suppress(OSError):
        return subprocess.run([python, "-I", "-S", "-c", ""], capture_output=True).returncode == 0
    return False


def _refuse_others(spec: EnvSpec, packages: Iterable[str], constrained: bool) -> None:
    if other := spec.differing(packages, constrained):
        files = f"{spec.file.name}{' and constraints.txt' if constrained and spec.constraints else ''}"
        raise DataError(
            f"environment {spec.name}: {spec.lock} does not go with {files}: {', '.join(other)}; write the lock file "
            "anew, or leave --exact out"
        )


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let one process at a time build here."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = open(place.with_name(f".{place.name}.lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{place.parent}: cannot write ({error.strerror or error})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{place}: another process is building it; wait until it has ended") from None
        except OSError:  # a file system without locks
            pass
        yield


def _interpreter(spec: EnvSpec, python: str | None) -> str:
    """A Python of the version that the file names."""
    own = getattr(sys, "_base_executable", None) or sys.executable
    candidates = [python] if python else [own, f"python{spec.python}"]
    for candidate in candidates:
        if (path := shutil.which(candidate)) is None:
            continue
        asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        if said == spec.python:
            return path
        if python:
            raise EnvBuildError(
                f"environment {spec.name}: {python} is Python {said or '?'}, and {spec.file.name} says {spec.python}"
            )
    wanted = python or f"python{spec.python}"
    raise EnvBuildError(
        f"environment {spec.name}: {wanted} not found; install Python {spec.python}, or name it: --python PATH"
    )


def _make(spec: EnvSpec, place: Path, python: str, tell: Tell, exact: bool) -> None:
    """Fill `place`, and write its record last. What an interrupted build has left is made anew: pip's own cache has the
    downloads."""
    start = time.monotonic()
    tell(f"{spec.name}: {len(spec.packages)} packages of {spec.file.name} and what they need; {_free(place.parent)}")
    if place.exists():
        shutil.rmtree(place)
    log = place.with_name(f"{place.name}.log")
    own = place / "bin/python"
    with open(log, "w", encoding="utf-8") as file:
        ours = importlib.util.find_spec("pip") is not None
        _run([python, "-m", "venv", *(["--without-pip"] if ours else []), str(place)], spec, file.name, file, tell)
        # The pip of this Python works on the new one: a copy in each environment takes longer than small packages.
        pip = [sys.executable, "-I", "-m", "pip", "--python", str(own)] if ours else [str(own), "-I", "-m", "pip"]
        constraints = place / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in spec.constraints), encoding="utf-8")
        # As arguments, not as a file: pip then names them in its messages.
        install = [*pip, "install", "--no-input", "--progress-bar", "off", "--constraint", str(constraints)]
        if exact:
            install = [*pip, "install", "--no-input", "--progress-bar", "off", "--no-deps", "--require-hashes"]
        _run([*install, *(["-r", str(spec.lock)] if exact else spec.packages)], spec, file.name, file, tell)
        _run([*pip, "check"], spec, file.name, file, tell)
    packages = installed(place)
    if exact:
        _refuse_others(spec, packages, constrained=False)  # venv's own pip and setuptools are in no lock
    facts = {
        "name": spec.name, "digest": spec.digest, "file": spec.file.name, "python": platform_of(own),
        "exact": spec.lock_digest if exact else None, "packages": packages,
        "bytes": size_of(place), "seconds": time.monotonic() - start,
    }  # fmt: skip
    write_json(place / RECORD, facts)


def _run(command: list[str], spec: EnvSpec, log: str, file, tell: Tell) -> None:
    """Run a command with its output in the log, and tell of each package that pip takes up."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    number, lines = 0, []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None, "it is a pipe"
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line.strip())
                if found := _TAKEN_UP.match(line):
                    number += 1
                    tell(f"{spec.name}: package {number}: {found[1]}")
                elif line.startswith("Installing collected packages"):
                    tell(f"{spec.name}: installing {line.count(',') + 1} packages")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise EnvBuildError(f"environment {spec.name}: {_reason(lines, command)}; all that pip said is in {log}")


def _reason(lines: list[str], command: list[str]) -> str:
    """Why a command failed, in one line that begins with the package at fault, where pip names one."""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = next((line for line in reversed(errors) if line), next((line for line in reversed(lines) if line), ""))
    for pattern in _NAMED:
        for line in lines:
            if found := pattern.search(line):
                return f"{found[1]}: {said}"
    return said or f"{' '.join(command[:4])} failed without a word"


def platform_of(python: Path) -> str:
    """The interpreter's version and machine, in words."""
    asked = [str(python), "-I", "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return f"{version} on {platform.system()} {platform.machine()}"


def size_of(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk."""
    return sum((Path(base) / name).lstat().st_blocks * 512 for base, _, names in os.walk(folder) for name in names)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free in {folder}"
