"""Commands that get no more memory from the operating system once they reach a phase.

    python starved.py PHASE RANK ARGUMENT...

runs a promptecho command so; `starved(phase)` does it in this process. The limit is the kernel's own (RLIMIT_AS), set
where the phase begins, and what the heap has left in larger pieces is taken away first. So the allocation that fails
is one of the command's own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

PLACES = {
    "sample": ("promptecho.t2i.diffusers_model", "DiffusersModel.sample"),
    "decode": ("promptecho.t2i.diffusers_model", "DiffusersModel.decode"),
    "reward": ("promptecho.rewards.echo.reward", "EchoReward.score_details"),
    "precompute": ("promptecho.train.loop", "precompute"),
    "update": ("promptecho.train.loop", "update"),
    "caption": ("promptecho.captions.shard", "caption_images"),
}


@contextlib.contextmanager
def no_more_memory() -> Iterator[None]:
    """No more address space than now, and nothing left of the heap in pieces of 64 KiB or more.

    Without oneDNN, which remembers for the rest of the process what it could not make.
    """
    import torch

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
    taken = []
    try:
        for size in (2**24, 2**20, 2**18, 2**16):
            with contextlib.suppress(RuntimeError):
                while True:
                    taken.append(torch.empty(size, dtype=torch.uint8))
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        taken.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def starved(phase: str) -> Iterator[None]:
    """Whatever runs inside finds no more memory in `phase`."""
    module, name = PLACES[phase]
    owner = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    def starving(*args, **kwargs):
        with no_more_memory():
            return original(*args, **kwargs)

    setattr(owner, last, starving)
    try:
        yield
    finally:
        setattr(owner, last, original)


def main() -> None:
    phase, rank, *arguments = sys.argv[1:]
    from promptecho.cli import main as run

    sys.argv = ["promptecho", *arguments]
    with starved(phase) if os.environ.get("RANK", "0") == rank else contextlib.nullcontext():
        run()


if __name__ == "__main__":
    main()
