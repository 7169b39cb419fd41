"""Who still works on results: a Snakemake, a job that it has begun, a command on this machine."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from pathlib import Path

RECORDS = ".snakemake"
_LOOKS = {b"show", b"clean", b"upgrade", b"plan", b"list"}  # commands, or commands of a group


def at_work(root: Path, experiment: str) -> str | None:
    """Why no file of `results/EXPERIMENT` may be deleted now, in words; None where no process works on it.

    Args:
        root: the folder in which Snakemake is started.
    """
    records = root / RECORDS
    if not (records / "incomplete").is_dir():  # Snakemake makes it, and marks there which jobs have started
        marks = records / "incomplete"
        return f"{marks}: not there, so nobody can know whether a job still runs; start where you start Snakemake"
    if any((records / "locks").glob("*")):
        return (
            "Snakemake is at work here, or was killed: let it finish, or stop it with Ctrl-C; if none is running any "
            "more, run: snakemake --profile profiles/local --unlock"
        )
    begun = [path for path in begun_outputs(records) if Path(path).parts[:2] == ("results", experiment)]
    if begun:
        return (
            f"a job was begun, and Snakemake has not recorded its end ({sorted(begun)[0]}): if it still runs, on a "
            "cluster say, let it end; then start Snakemake once more, which takes it up"
        )
    found = [pid for pid in jobs_here(root) if pid != os.getpid()]
    if found:
        return f"a command of the workflow runs here (process {', '.join(map(str, found))}): let it end, or stop it"
    return None


def begun_outputs(records: Path) -> Iterator[str]:
    """Outputs of jobs that have started and whose end is not recorded."""
    for output, _ in begun_marks(records):
        yield output


def begun_marks(records: Path) -> Iterator[tuple[str, Path]]:
    """The same, each with its mark: Snakemake marks each output with a file whose name is the path in base64, long ones
    in folders (`@PART/@PART/PART`)."""
    marks = records / "incomplete"
    for folder, _, names in os.walk(marks):
        parts = [part.removeprefix("@") for part in Path(folder).relative_to(marks).parts]
        for name in names:
            try:
                yield base64.urlsafe_b64decode("".join([*parts, name])).decode(), Path(folder) / name
            except (binascii.Error, UnicodeDecodeError):
                continue  # a note of Snakemake's about its own records


def record_of(records: Path, output: str) -> Path:
    """Where Snakemake keeps what it knows of a finished output; it is written anew each time that its job has ended."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    *above, last = [name[start : start + 254] for start in range(0, len(name), 254)]
    return records.joinpath("metadata", *(f"@{part}" for part in above), last)


def jobs_here(root: Path) -> Iterator[int]:
    """Processes of our command on this machine that were started in `root`, except those that only read."""
    here = root.resolve()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            inside = (folder / "cwd").resolve() == here
        except OSError:  # it has just ended, or belongs to another user
            continue
        ours = words[3:] if words[1:3] == [b"-m", b"promptecho"] else words[2:] if _is_script(words) else None
        if inside and ours is not None and _LOOKS.isdisjoint(ours[:2]) and b"--watch" not in ours:
            yield int(folder.name)


def _is_script(words: list[bytes]) -> bool:
    return len(words) > 1 and os.path.basename(words[1]) == b"promptecho"
