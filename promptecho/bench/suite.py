"""Which steps there are, in order of worth: with less time, what matters most is still measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from promptecho.bench.runner import Step

EMBEDDED_S = 90  # with embedded models any step is begun with so much time left: an estimate
ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("sdpa", "cudnn", "flash3", "flash4")
# name: what `step.py` runs, seconds that it takes at least with models of several billion weights, longest, settings
# beside the configuration's. The first decide what is begun with little time left: those of the first five steps are
# what one H200 took (docs/performance.md), of all others estimates by the parts that these have in common.
STEPS: dict[str, tuple[str, float, float, tuple[str, ...]]] = {
    "peak": ("peak", 5, 60, ()),
    "iteration": ("iteration", 270, 480, ()),
    "reward": ("reward", 40, 150, ()),
    "forward": ("forward", 70, 240, ()),
    "forward compile=off": ("forward", 40, 150, ("compute.compile=off",)),
    "sampler": ("sampler", 140, 360, ()),
    "update": ("update", 90, 300, ()),
    **{f"forward attention={kind}": ("forward", 70, 240, (f"compute.attention={kind}",)) for kind in BACKENDS},
    "sampler compile=off": ("sampler", 110, 300, ("compute.compile=off",)),
    "update deterministic": ("update", 50, 240, ("compute.deterministic=true",)),
    "update checkpointing=off": ("update", 90, 300, ("training.activation_checkpointing=off",)),
}


def chosen(asked: str | None) -> list[str]:
    """Names of the steps that `--steps` asks for, each with all of its kind, as `forward compile=off` of `forward`."""
    if asked is None:
        return list(STEPS)
    wanted = [word.strip() for word in asked.split(",")]
    return [name for name in STEPS if name in wanted or name.split()[0] in wanted]


def steps_of(
    names: Sequence[str], config: Path, options: Sequence[str], changes: Sequence[str], *, needs: tuple[str, ...] = (),
    environment: dict[str, str] | None = None, python: str = sys.executable, embedded: bool = False,
) -> list[Step]:  # fmt: skip
    """The named steps on `config`.

    Args:
        options: further ones of `step.py`, such as `--device`.
        changes: KEY=VALUE over the configuration's; a step's own settings go over them.
        needs: steps of others that make the configuration.
        embedded: its models are embedded ones, with which no step takes long.
    """
    found = []
    for name in names:
        kind, least, limit, settings = STEPS[name]
        words = [word for change in (*changes, *settings) for word in ("--set", change)]
        command = [python, "-m", "promptecho.bench.step", kind, "--config", str(config), *options, *words]
        least = min(least, EMBEDDED_S) if embedded else least
        found.append(Step(name, command, least, limit, () if kind == "peak" else needs, here(environment)))
    return found


def here(environment: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which a process finds this checkout."""
    given = {**os.environ, **(environment or {})}
    return {**given, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [given.get("PYTHONPATH")])])}
