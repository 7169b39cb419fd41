"""A trainer without a run: what measurements of training begin with."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from promptecho.cluster.device import choose_device
from promptecho.config import load_experiment, run_training
from promptecho.train import loop, setup
from promptecho.train.phases import Phases
from promptecho.train.stop import StopCheck
from promptecho.train.trainer import Segment, Trainer
from promptecho.train.watchdog import Watchdog


@contextlib.contextmanager
def alone(config: Path, run: str, captions: Path, **changes: Any) -> Iterator[Trainer]:
    """The trainer of `run` in a single process, on a GPU where there is one, before its first iteration.

    Nothing is watched or kept, and nothing counts as hanging. What is printed meanwhile goes to stderr.

    Args:
        changes: other values of keys of `training`.
    """
    experiment = load_experiment(config)
    training = run_training(experiment, run)
    unwatched = training.heldout.model_copy(update={"prompts": 0})
    training = training.model_copy(update={"heldout": unwatched, **changes})
    device = torch.device(choose_device("auto"))
    layout, launch = loop.init_distributed(training, device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        work = Path(folder)
        segment = Segment(experiment, run, training.iterations, captions, work, work)
        with Watchdog(work / "ranks", 0, 1, 10**6, 10**6) as watchdog:
            phase = Phases(watchdog, StopCheck(None), device, lambda *_: [])
            yield setup.prepare(segment, training, layout, launch, phase)
