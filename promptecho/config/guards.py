"""What several stages ask of an experiment's guards, the rewards that watch."""

from __future__ import annotations

from collections.abc import Sequence

from promptecho.config.load import baseline_of, evaluation_steps, reward_vlm, run_rewards
from promptecho.config.models import ExperimentConfig
from promptecho.config.rewards import GuardSection
from promptecho.config.scorers import is_pairwise
from promptecho.errors import ConfigError
from promptecho.suggest import maybe

Checkpoint = tuple[str, int]  # run and step


def guard_entry(config: ExperimentConfig, title: str) -> tuple[int, GuardSection]:
    """The guard whose column has this name, and its place in the list.

    Raises:
        ConfigError: there is none.
    """
    found = {guard.title: (index, guard) for index, guard in enumerate(config.guards)}
    if title not in found:
        known = ", ".join(found) or "none"
        raise ConfigError(f"{config.experiment}: guards: none is called {title} (known: {known}){maybe(title, found)}")
    return found[title]


def guards_of(config: ExperimentConfig, image_set: str) -> list[GuardSection]:
    """The guards of an image set."""
    return [guard for guard in config.guards if guard.image_sets is None or image_set in guard.image_sets]


def guarded_checkpoints(config: ExperimentConfig, benchmark: str) -> list[Checkpoint]:
    """The images that a benchmark's table and curves tell of, and those of the baseline of pairs: base first."""
    runs = ["base", *config.runs, *config.adapters]
    found = [(run, step) for run in runs for step in evaluation_steps(config, benchmark, run)]
    before = [baseline_of(config, benchmark)] if is_pairwise(config.benchmarks[benchmark]) else []
    return list(dict.fromkeys([*before, *found]))


def guard_paths(config: ExperimentConfig, benchmark: str, places: Sequence[Checkpoint] | None = None) -> list[str]:
    """Score files, in results/E, of all guards of the images that a benchmark's table tells of.

    Args:
        places: only of these checkpoints.
    """
    image_set = config.benchmarks[benchmark].image_set
    return [
        f"guards/{guard.title}/{image_set}/{run}/{step}.json"
        for guard in guards_of(config, image_set)
        for run, step in (places or guarded_checkpoints(config, benchmark))
    ]


def is_trained_with(config: ExperimentConfig, run: str, guard: GuardSection) -> bool:
    """Whether the run's training raises just this: the same reward, settings, question and model."""
    if run not in config.runs:
        return False
    query = guard.query or config.captions.query
    return any(
        entry.weight > 0 and entry.label is None and (entry.name, entry.options) == (guard.name, guard.options)
        and ("query" not in entry.reward.takes or (entry.query or config.captions.query) == query)
        and reward_vlm(config, entry, run) == reward_vlm(config, guard)
        for entry in run_rewards(config, run)
    )  # fmt: skip


def unwatched_runs(config: ExperimentConfig) -> str:
    """A warning: runs whose reward is no guard, so that none can be said to fall while it rises; "" where there is
    nothing to say."""
    runs = [run for run in config.runs if not any(is_trained_with(config, run, guard) for guard in config.guards)]
    if not config.guards or not runs:
        return ""
    train = "trains" if len(runs) == 1 else "train"
    return (
        f"guards: none is the reward that {', '.join(runs)} {train} with, so that no warning can be given of a guard "
        "that falls while it rises; list that reward in guards, too"
    )


def unscored_sets(config: ExperimentConfig) -> list[str]:
    """Warnings: guards of image sets that no benchmark of `evaluate` scores, whose images they never look at."""
    scored = {config.benchmarks[entry.benchmark].image_set for entry in config.evaluate}
    found = []
    for index, guard in enumerate(config.guards):
        if guard.image_sets is None and not scored:
            found.append(f"guards.{index}: {guard.title} never runs: evaluate names no benchmark")
        elif idle := [name for name in guard.image_sets or [] if name not in scored]:
            found.append(
                f"guards.{index}.image_sets: no benchmark of evaluate scores {', '.join(idle)}, so that {guard.title} "
                "never looks at those images; evaluate one that does, or leave them out"
            )
    return found
