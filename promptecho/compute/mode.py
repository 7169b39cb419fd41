"""What the section `compute` sets for a whole process, and what a state records of it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from promptecho.compute import fixed_sizes
from promptecho.compute.blocks import missing
from promptecho.config import ExperimentConfig
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.models.staging import kept_folder
from promptecho.shipped import is_shipped

CACHE = "compiled"  # folder of compiled blocks, beside the copies of models


@dataclass(frozen=True)
class ComputeMode:
    """How this process computes. The defaults are what was before these choices: states without a record have them."""

    compile: bool = False
    attention: str = "auto"
    deterministic: bool = False


_MODE = ComputeMode()


def set_up(config: ExperimentConfig, device: torch.device | str, *, partitioned: bool = False) -> ComputeMode:
    """Make this process compute on `device` as `config.compute` says; call it before the first model is loaded.

    What was compiled is kept in the node's own folder, `models.staging`, or else in torch's.

    Args:
        partitioned: weights lie in pieces on the ranks (ZeRO-3), where nothing can be compiled.

    Raises:
        ConfigError: `compile: on`, where it can't be.
    """
    global _MODE
    section = config.compute
    _set_deterministic(section.deterministic)
    # The same code in every process (fixed_sizes.py), but its bits have not been compared on a GPU. Compiling takes a
    # minute or more for any size of a model, which the embedded ones, in processes of seconds, do not earn back.
    embedded = is_shipped(config.models.t2i.path)
    fitting = torch.device(device).type == "cuda" and not section.deterministic and not embedded
    wanted = section.compile == "on" or (section.compile == "auto" and fitting)
    lack = missing(device) if wanted else None
    problem = f"this machine lacks {lack}" if lack else None
    if wanted and partitioned:
        problem = "training.zero_stage: 3 keeps weights in pieces, which can't be compiled"
    if problem and section.compile == "on":
        raise ConfigError(f"compute.compile: on, but {problem}; set it to auto or off")
    if problem:
        print(f"compute.compile: auto is off here: {problem}", file=sys.stderr, flush=True)
    _MODE = ComputeMode(wanted and not problem, section.attention, section.deterministic)
    if _MODE.compile:
        _configure_compiler(config.models_staging)
    return _MODE


def current() -> ComputeMode:
    """The mode of this process."""
    return _MODE


def recorded() -> dict[str, Any]:
    """The mode as states record it."""
    return asdict(_MODE)


def changes(before: dict[str, Any] | None) -> list[str]:
    """What is other than in the mode that a state records (None: none recorded), as `compile: true, was false`."""
    then, now = {**asdict(ComputeMode()), **(before or {})}, recorded()
    return [
        f"{key}: {_told(value)}, was {_told(then.get(key))}" for key, value in now.items() if then.get(key) != value
    ]


@contextmanager
def only_deterministic() -> Iterator[None]:
    """Raises ModelError for an operation inside that `compute.deterministic` forbids; every other error passes."""
    try:
        yield
    except RuntimeError as error:
        if not (found := re.search(r"(\S+) does not have a deterministic implementation", str(error))):
            raise
        raise ModelError(
            f"compute.deterministic: {found[1]} has no deterministic kernel on this device; set it to false"
        ) from error


def _told(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value))


def _set_deterministic(wanted: bool) -> None:
    if wanted:
        # cuBLAS reads it when its first product begins; without it torch refuses its products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def _configure_compiler(staging: str | None) -> None:
    import torch._inductor.config
    import torch.compiler.config

    # No choice by timing: the same kernels, and so the same bits, in every process.
    torch._inductor.config.deterministic = True
    # Nor what an earlier version compiled for other sizes.
    torch.compiler.config.cache_key_tag = fixed_sizes.TAG
    # In this process: each of many ranks would else start helpers, each as large as torch.
    torch._inductor.config.compile_threads = 1
    if staging is None:
        return  # torch's own place is on the node too: torchinductor_USER in the folder for temporary files
    try:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kept_folder(staging, CACHE))
    except DataError as error:
        print(f"compute.compile: {error}; compiled blocks are kept in torch's folder", file=sys.stderr, flush=True)
