"""Which prompts an iteration uses, and a record of them in the state: a run goes on as long as those are the same.

So a line of the captions that was corrected before it was used costs nothing, and the run is bit for bit the one with
the corrected line from the start. Imports nothing heavy: the workflow asks `captions_problem` too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.captions.store import Caption
from promptecho.errors import DataError, counted
from promptecho.files import digest, read_json
from promptecho.seeds import derive_seed

CAPTIONS = "captions file"  # its name among a state's digests


TrainingPrompt = Caption  # what a training uses of a caption: `prompt_id`, `text`


def prompts_of(prompts: Sequence[TrainingPrompt], seed: int, iteration: int, n: int) -> list[TrainingPrompt]:
    """The `n` distinct prompts of an iteration (from 0), without replacement until all were used.

    Raises:
        DataError: fewer than `n` prompts in all.
    """
    if len(prompts) < n:
        there = counted(len(prompts), "training caption is", "training captions are")
        raise DataError(f"{there} fewer than training.prompts_per_iteration = {n}")
    per_epoch = len(prompts) // n  # the remainder of a shuffled epoch is left out; the next shuffle has it again
    epoch, position = divmod(iteration, per_epoch)
    return [prompts[index] for index in _order(seed, epoch, len(prompts))[position * n : (position + 1) * n]]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, "prompts", epoch)).permutation(count)


@dataclass(frozen=True)
class PromptUse:
    """What a run's iterations use: prompts, and a dict of id -> label for each reward that has labels of its own."""

    prompts: Sequence[TrainingPrompt]
    labels: Sequence[dict[str, str]]
    seed: int
    per_iteration: int

    def of(self, iteration: int) -> str:
        """Digest of what one iteration (from 0) uses."""
        chosen = prompts_of(self.prompts, self.seed, iteration, self.per_iteration)
        return digest([[one.prompt_id, one.text, *(named[one.prompt_id] for named in self.labels)] for one in chosen])

    def record(self, iteration: int) -> dict[str, Any]:
        """The record of a run that has used these from its start and completed `iteration` iterations."""
        return {"since": 0, "used": [self.of(one) for one in range(iteration)]}

    def differing(self, record: dict[str, Any]) -> list[int]:
        """Iterations, as people count, that would use other prompts now than they did."""
        since = record["since"]
        return [since + k + 1 for k, used in enumerate(record["used"]) if self.of(since + k) != used]

    def extended(self, record: dict[str, Any], iteration: int) -> dict[str, Any]:
        """`record` after one more iteration, number `iteration` from 0."""
        return {**record, "used": [*record["used"], self.of(iteration)]}


def restarted(record: dict[str, Any], iteration: int) -> dict[str, Any]:
    """The record of a run that goes on with other prompts after `iteration` iterations; `accepted` lists all such."""
    return {"since": iteration, "used": [], "accepted": [*record.get("accepted", []), iteration]}


def change(facts: dict[str, Any], use: PromptUse) -> str | None:
    """What of the prompts that a state (its `state.json`) has used is different now; None if all are the same."""
    record = facts.get("prompts")
    if record is None:
        return "this state tells only their file, which is another now"
    if not (differing := use.differing(record)):
        return None
    now = prompts_of(use.prompts, use.seed, differing[0] - 1, use.per_iteration)
    return (
        f"{len(differing)} of its {len(record['used'])} iterations would use other prompts now, first iteration "
        f"{differing[0]} (now {', '.join(one.prompt_id for one in now[:3])}, ...)"
    )


def captions_problem(checkpoint: str | Path, use: PromptUse) -> str | None:
    """Why a finished checkpoint (runs/R/N) does not fit the captions and labels of now (train/labels.py: `prompt_use`),
    where their files are not those of its state any more; None where all that it has used is the same.

    Raises:
        DataError: the checkpoint has no readable state.json.
    """
    path = Path(checkpoint) / "state" / "state.json"
    try:
        problem = change(read_json(path), use)
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: not a training state") from None
    return problem and f"{checkpoint}: {problem}"
