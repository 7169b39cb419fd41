"""A rank of `promptecho train` that records what it exchanges with the others.

    python recorded_ranks.py FOLDER ARGUMENT...

Every collective call of torch.distributed (DeepSpeed makes its own through it) becomes an entry [name, tensors, phase,
iteration] of FOLDER/RANK.json; phase and iteration are where the watchdog has the rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVES = (
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "all_to_all_single",
    "barrier", "broadcast", "broadcast_object_list", "gather", "gather_object", "new_group", "reduce",
    "reduce_scatter", "reduce_scatter_tensor", "scatter", "scatter_object_list", "_all_gather_base",
    "_reduce_scatter_base",
)  # fmt: skip


def record(calls: list[list[Any]]) -> None:
    from promptecho.train.watchdog import Watchdog

    where = ["", 0]
    moved = Watchdog.__call__

    def follow(self: Watchdog, phase: str, iteration: int, step: int = 0) -> None:
        where[:] = [str(phase), iteration]
        moved(self, phase, iteration, step)

    def recorded(name: str) -> Any:
        original = getattr(dist, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            tensors = [a for a in [*args, *kwargs.values()] if torch.is_tensor(a)]
            calls.append([name, [f"{a.dtype} {list(a.shape)}" for a in tensors], *where])
            return original(*args, **kwargs)

        return call

    Watchdog.__call__ = follow
    for name in COLLECTIVES:
        setattr(dist, name, recorded(name))


def main() -> None:
    folder, *arguments = sys.argv[1:]
    calls: list[list[Any]] = []
    record(calls)
    from promptecho.cli import main as run

    sys.argv = ["promptecho", *arguments]
    try:
        run()
    finally:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(calls))


if __name__ == "__main__":
    main()
