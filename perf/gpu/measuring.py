"""What the scripts of this folder share: paired runs, ratios with their spread, peak memory, a device's real speed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from promptecho.bench.measuring import Taken, take
from promptecho.bench.measuring import ratios as ratios
from promptecho.bench.peak import SIZES as PEAK_SIZES
from promptecho.bench.peak import machine
from promptecho.bench.report import spread as spread
from promptecho.cluster.device import choose_device


@dataclass(frozen=True)
class Setting:
    """Where and with what a comparison runs; `small`: not with models of real size."""

    device: torch.device
    dtype: str
    small: bool
    size: int  # width and height of an image in pixels


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Options that comparisons share; `setting` reads them, and `--model`."""
    parser.add_argument("--folder", type=Path, default=Path("random-models"), help="Where random models are kept.")
    parser.add_argument("--tiny", action="store_true", help="A tiny random model, and small images.")
    parser.add_argument("--size", type=int, help="Width and height in pixels; default 1024 (shapes: 64, tiny: 32).")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="Default: bfloat16 on a GPU, else float32.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads.")
    parser.add_argument("--out", type=Path, help="JSON file to write.")


def setting(arguments: argparse.Namespace) -> Setting:
    """Defaults by device and model; sets the number of threads."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(choose_device(arguments.device))
    small = arguments.tiny or arguments.model == "shapes"
    size = arguments.size or (32 if arguments.tiny else 64 if small else 1024)
    return Setting(device, arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32"), small, size)


def in_rounds(
    sides: dict[str, Callable[[], Any]], device: torch.device, rounds: int, *, warm_up: int = 1
) -> dict[str, list[Taken]]:
    """All sides once per round, in turning order; `warm_up` rounds are not counted."""
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(-warm_up, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            run = take(sides[name], device)
            if number >= 0:
                taken[name].append(run)
    return taken


def flops(code: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        code()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype, *, tiny: bool = False, rounds: int = 10) -> float:
    """The fastest of square matrix products, in FLOP/s: what "100 %" means in a utilisation. `tiny`: of small ones."""
    best = 0.0
    for size in (256,) if tiny else PEAK_SIZES[device.type]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b  # warm up
        for _ in range(rounds):
            run = take(lambda a=a, b=b: a @ b, device)
            best = max(best, 2 * size**3 / run.time_on(device))
    return best


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, for the record."""
    return machine(device)


def show(table: Table) -> None:
    """Print it, as wide as its columns need where the terminal does not say."""
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def write(path: Path | None, facts: dict[str, Any]) -> None:
    """The record as JSON, where it was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
