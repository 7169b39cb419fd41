"""The adapter that a run begins with, `training.init_adapter`: an entry of `runs`, or another run's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from promptecho.config.training import TrainingConfig
from promptecho.suggest import maybe

if TYPE_CHECKING:
    from promptecho.config.models import AdapterSection, ExperimentConfig


class InitialAdapter(NamedTuple):
    """An entry with `adapter` (`step` is None), or the checkpoint `step` of a run."""

    name: str
    step: int | None

    @property
    def folder(self) -> str:
        """Where the workflow has it, below results/E."""
        return f"adapters/{self.name}" if self.step is None else f"runs/{self.name}/{self.step}/adapter"


def initial_adapter(config: ExperimentConfig, run: str) -> InitialAdapter | None:
    """What a run begins with; None: with an adapter that does nothing yet."""
    written = config.runs.get(run, config.training).init_adapter
    return None if written is None else parsed(written)


def parsed(written: str) -> InitialAdapter:
    """`NAME` or `RUN@STEP`; a step that is no number is 0, which no run has."""
    name, at, step = written.partition("@")
    return InitialAdapter(name, (int(step) if step.isdecimal() else 0) if at else None)


def initial_problems(runs: dict[str, TrainingConfig], adapters: dict[str, AdapterSection]) -> dict[str, str]:
    """Run -> what is wrong with its `init_adapter`, and how to mend it."""
    found = {name: _problem(name, training, runs, adapters) for name, training in runs.items()}
    return {name: problem for name, problem in found.items() if problem}


def _problem(
    run: str, training: TrainingConfig, runs: dict[str, TrainingConfig], adapters: dict[str, AdapterSection]
) -> str | None:
    if training.init_adapter is None:
        return None
    name, step = parsed(training.init_adapter)
    if name in adapters:
        return None if step is None else f"{name} is an adapter and has no checkpoints; write {name} alone"
    if name not in runs:
        known = ", ".join([*adapters, *(f"{other}@STEP" for other in runs if other != run)]) or "none"
        entry = (
            f"an adapter from elsewhere is an entry of its own, `runs: {{start: {{adapter: {training.init_adapter}}}}}`"
        )
        return (
            f"{training.init_adapter}: no such entry of runs (known: {known}){maybe(name, [*adapters, *runs])}; {entry}"
        )
    steps = runs[name].checkpoint_steps
    if step not in steps:
        known = ", ".join(f"{name}@{one}" for one in steps)
        return f"{training.init_adapter}: no checkpoint of run {name} (known: {known})"
    chain = [run]
    while name in runs:
        if name in chain:
            return f"{' begins with '.join([*chain, name])}: a circle; one of them must begin without"
        chain.append(name)
        name = parsed(runs[name].init_adapter or "").name
    if runs[chain[1]].finetuning == "full":
        return f"{training.init_adapter}: run {chain[1]} trains the whole model (finetuning: full) and has no adapter"
    theirs, ours = runs[chain[1]].lora, training.lora
    keys = ["rank", "alpha", "target_modules"]
    if ours.target_modules is None:  # else `layers` means nothing
        keys.append("layers")
    odd = [key for key in keys if getattr(theirs, key) != getattr(ours, key)]
    if odd:
        values = ", ".join(f"lora.{key}: {getattr(theirs, key)}" for key in odd)
        return f"{training.init_adapter} has another adapter than this run; set {values}"
    return None
