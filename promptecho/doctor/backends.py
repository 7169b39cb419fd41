"""Whether what looks at the images of a benchmark is known to run at all."""

from __future__ import annotations

from collections.abc import Iterator

from promptecho.config.scorers import unproved_backends
from promptecho.doctor.finding import Finding, warning
from promptecho.doctor.preflight import JOBS, Preflight


def backends(preflight: Preflight) -> Iterator[Finding]:
    """Backends that nobody has brought to run, whether their packages are installed or not. Somebody else may have, so
    that it is no problem."""
    for name, backend in unproved_backends(preflight.benchmarks).items():
        if name in preflight.names("score"):
            told = f"benchmarks.{name}, backend {backend.name}: {backend.unproved}"
            yield warning(told, f"{JOBS['score']} of {name}", backend.instead)
