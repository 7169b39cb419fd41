"""A shortage of memory as one line: where it occurred, how much was requested, and what to change.

Code that fills memory says which phase it is in (`in_phase`); what starts it knows the configuration, and turns the
library's error into advice (`MemoryAdvice`). Which keys help in which phase: config/memory.py.

A process that the kernel kills for memory (exit code 137) can't say anything.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import OutOfMemoryError, PromptEchoError

PATTERN = re.compile(
    r"out of memory|DefaultCPUAllocator: (?:can't allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
    r"|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED|^could not create a primitive$"  # the last is oneDNN's
)
AT_BEST = "every key that lowers it is at its best: take a device with more memory, or smaller images or models"
UNITS = {unit: 2 ** (10 * power) for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))}
SIZE = rf"([\d.]+) ({'|'.join(UNITS)})"


def shortage(error: BaseException) -> BaseException | None:
    """The shortage of memory that `error` is, or was raised from; None where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, PromptEchoError) and (
            isinstance(seen, MemoryError)  # Python's and numpy's
            or (isinstance(seen, OSError) and seen.errno == errno.ENOMEM)
            or PATTERN.search(str(seen))  # torch's own, CUDA's, cuBLAS's, those of safetensors
        ):
            return seen
        seen = seen.__cause__
    return None


@contextmanager
def in_phase(name: str) -> Iterator[None]:
    """A shortage of memory inside belongs to phase `name`, unless an inner phase has it already."""
    try:
        yield
    except Exception as error:
        found = shortage(error)
        if found is not None and not hasattr(found, "memory_phase"):
            vars(found)["memory_phase"] = name
        raise


@dataclass(frozen=True)
class MemoryAdvice:
    """`with advice("sample"): ...` turns a shortage of memory into one line that says what to change.

    Args:
        device: where it is computed, such as `cuda:1`.
        keys: for a phase and a device the changes that lower its memory, best first; empty where everything is at its
            lowest.
        where: more about the place, such as " of iteration 3".
    """

    device: str
    keys: Callable[[str, str], list[str]]
    where: Callable[[], str] = lambda: ""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Raises OutOfMemoryError for a shortage inside; every other error passes."""
        try:
            yield
        except Exception as error:
            found = shortage(error)
            if found is None or isinstance(error, OutOfMemoryError):
                raise
            phase = getattr(found, "memory_phase", phase)
            on = self.device if "cuda" in str(found).lower() or "CU" in str(found) else "cpu"
            *others, last = self.keys(phase, on) or [AT_BEST]
            advice = f"{', '.join(others)}{', or ' if others else ''}{last}"
            message = f"out of memory on {on} in phase {phase}{self.where()}: {sizes(str(found))}"
            raise OutOfMemoryError(f"{message}; {advice}") from error


def sizes(message: str) -> str:
    """What a library's message says about bytes, in words."""
    wanted = re.search(rf"(?:[Tt]ried to allocate|Unable to allocate) {SIZE}", message)
    parts = [f"{_size(*wanted.groups())} more wanted" if wanted else _one_line(message)]
    if total := re.search(rf"total capacity of {SIZE} of which {SIZE} is free", message):
        parts.append(f"{_size(*total.groups()[2:])} of {_size(*total.groups()[:2])} free")
        if own := re.search(rf"{SIZE} is allocated by PyTorch", message):
            parts.append(f"{_size(*own.groups())} in use by this process")
        others = re.findall(rf"[Pp]rocess \d+ has {SIZE} memory in use", message)
        if others:
            held = sum(float(number) * UNITS[unit] for number, unit in others)
            parts.append(f"{_size(held, 'bytes')} held by other processes")
    elif "CU" not in message:
        parts += _host_sizes()
    return ", ".join(parts)


def _size(number: float | str, unit: str) -> str:
    value = float(number) * UNITS[unit]
    larger = next((name for name in ("GiB", "MiB", "KiB") if value >= UNITS[name]), "bytes")
    return f"{value / UNITS[larger]:.{0 if larger == 'bytes' else 2}f} {larger}"


def _one_line(message: str) -> str:
    return " ".join(message.split())[:150] or "nothing more to be had"


def _host_sizes() -> list[str]:
    """This process's resident memory, and what the machine has left (Linux)."""
    found = []
    for file, key, what in (("self/status", "VmRSS", "in use by this process"), ("meminfo", "MemAvailable", "free")):
        try:
            text = (Path("/proc") / file).read_text()
        except OSError:
            continue
        if value := re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE):
            found.append(f"{_size(value[1], 'KiB')} {what}")
    return found
