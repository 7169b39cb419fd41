"""Read, merge and validate configurations, and ask them."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from promptecho.config.checks import Problems, check_runs, check_sections, cross_problems
from promptecho.config.choices import unknown_allowed
from promptecho.config.descriptors import ModelOptions
from promptecho.config.extends import read_experiment
from promptecho.config.families import with_defaults
from promptecho.config.models import ExperimentConfig, SiteConfig
from promptecho.config.presets import with_preset
from promptecho.config.rewards import GuardSection, RewardSection, VlmSection
from promptecho.config.scorers import is_pairwise
from promptecho.config.suggestions import is_adapter
from promptecho.config.tracker_kinds import TRACKERS
from promptecho.config.training import TrainingConfig
from promptecho.config.yaml_files import deep_merge, read_yaml
from promptecho.errors import ConfigError, DataError
from promptecho.plugins import check_trusted, load_plugins, only
from promptecho.suggest import maybe
from promptecho.templates import Template, read_template

_RESOLVED = re.compile(r"[0-9a-f]{16}\.yaml")  # by its digest


def _merge_run(training: Any, own: Any) -> Any:
    if own is None:  # a run that changes nothing: `baseline:`
        own = {}
    merged = deep_merge(training, own)
    if isinstance(own, dict) and isinstance(merged, dict):
        # A run that picks one way of naming checkpoints drops the other one, which it inherited.
        for one, other in (("checkpoints", "checkpoint_every"), ("checkpoint_every", "checkpoints")):
            if own.get(one) is not None and own.get(other) is None:
                merged[other] = None
    return merged


def parse_experiment(
    raw: dict[str, Any], source: str = "configuration", presets: Path | None = None, file: Path | None = None,
    without_trackers: bool = False,
) -> ExperimentConfig:  # fmt: skip
    """Validate the content of an experiment file; `raw["experiment"]` must be set. What it names in `plugins` is
    imported.

    Args:
        presets: folder of the user's own presets (`training.preset`), beside those of the checkout.
        file: where the content comes from, which decides where plugins are found and whether they may be; None: from
            code, which is trusted, and plugins are found where the process was started.
        without_trackers: trackers may be named that are not at hand, and plugins that nothing else needs may fail.

    Raises:
        ConfigError: one line per problem, each `SOURCE: dotted.path: what is wrong`.
    """
    specs = raw.get("plugins")
    specs = [spec for spec in specs if isinstance(spec, str)] if isinstance(specs, list) else []
    if file is not None:
        check_trusted(file, specs)
    folder = raw.get("plugins_folder") or (Path() if file is None else file.parent)
    faulty = dict(line.split(": ", 1) for line in load_plugins(specs, str(folder), source))
    with only(specs), unknown_allowed(*([TRACKERS] if without_trackers else [])):
        return _parse(copy.deepcopy(raw), source, presets, faulty, without_trackers)


def _parse(
    raw: dict[str, Any], source: str, presets: Path | None, faulty: Problems, without_trackers: bool
) -> ExperimentConfig:
    training = raw.pop("training", None)
    training = {} if training is None else training
    runs = raw.pop("runs", None)
    runs = {} if runs is None else runs
    published: dict[str, Any] = {}
    if isinstance(runs, dict):
        published = {name: own for name, own in runs.items() if is_adapter(own)}
        if published:
            raw["adapters"] = {**(raw.get("adapters") or {}), **published}
            runs = {name: own for name, own in runs.items() if name not in published}
    problems: Problems = {}
    raw, training = with_defaults(raw, with_preset(training, "training", presets, problems))
    sections, found = check_sections(ExperimentConfig, raw)
    problems |= found
    if isinstance(runs, dict):
        runs = {name: with_preset(own, f"runs.{name}", presets, problems) for name, own in runs.items()}
    if not isinstance(runs, dict):
        problems["runs"] = f"expected a mapping of run names (found {runs!r})"
        runs = {}
    merged = {str(name): (_merge_run(training, own), own or {}) for name, own in runs.items()}
    sections["runs"] = check_runs(training, merged, problems)
    _, name_problems = check_sections(ExperimentConfig, {"runs": {name: {} for name in merged}})
    problems.update({path: text for path, text in name_problems.items() if path.startswith("runs.")})
    cross_problems(sections, problems)
    if faulty and (problems or not without_trackers):
        # What they would have brought is not missing for a reason of its own.
        brought = {"rewards", "family", "benchmark", "scorer", "backend", "kind"}
        problems = {path: text for path, text in problems.items() if not brought.intersection(path.split("."))} | faulty
    _report({_as_written(path, published): text for path, text in problems.items()}, source)
    return ExperimentConfig.model_validate(
        {**raw, "training": training, "runs": {name: pair[0] for name, pair in merged.items()}}
    )


def _as_written(path: str, published: dict[str, Any]) -> str:
    """Published adapters are written under `runs`."""
    section, _, rest = path.partition(".")
    ours = section == "adapters" and any(rest == name or rest.startswith(f"{name}.") for name in published)
    return f"runs.{rest}" if ours else path


def _report(problems: Problems, source: str) -> None:
    if problems:
        raise ConfigError("\n".join(f"{source}: {path}: {text}" for path, text in sorted(problems.items())))


def load_experiment(
    path: str | Path, overrides: dict[str, Any] | None = None, *, with_trackers: bool = False
) -> ExperimentConfig:
    """Read and validate an experiment file, or a resolved one (`results/E/config/DIGEST.yaml`).

    Args:
        overrides: nested mapping merged over the file before validation.
        with_trackers: refuse a tracker that is not at hand in a resolved file, too. That was there when the file was
            written, and of the stages that read it training alone needs it.

    Raises:
        ConfigError: one line per problem, each with its dotted path.
    """
    resolved = _RESOLVED.fullmatch(Path(path).name) is not None
    raw = read_yaml(path, ours=True) if resolved else read_experiment(path)
    raw.setdefault("experiment", Path(path).stem)
    if raw.get("plugins"):
        raw.setdefault("plugins_folder", str(Path(path).parent))
    presets = Path(path).resolve().parent.parent / "presets"
    without = resolved and not with_trackers
    return parse_experiment(deep_merge(raw, overrides or {}), str(path), presets, Path(path), without)


def run_training(config: ExperimentConfig, run: str) -> TrainingConfig:
    """`training` with the overrides of `run`.

    Raises:
        ConfigError: no such run.
    """
    if run not in config.runs:
        raise ConfigError(
            f"{config.experiment}: runs.{run}: no such run (known: {', '.join(config.runs) or 'none'}; "
            f"`base` is the untrained model and is not trained){maybe(run, config.runs)}"
        )
    return config.runs[run]


def run_rewards(config: ExperimentConfig, run: str) -> list[RewardSection]:
    """The weighted rewards of `run`: its own, or the experiment's."""
    return run_training(config, run).rewards or config.rewards


def rewards_key(config: ExperimentConfig, run: str) -> str:
    """The dotted key of the list of `run`'s rewards."""
    own, general = run_training(config, run).rewards, config.training.rewards
    return "rewards" if own is None else "training.rewards" if own == general else f"runs.{run}.rewards"


def reward_templates(config: ExperimentConfig, run: str) -> list[Template | None]:
    """What each reward of `run` asks, where that is a template.

    Raises:
        ConfigError: a template can't be read, lacks {prompt} or has other placeholders; names its dotted path.
    """
    found: list[Template | None] = []
    for index, entry in enumerate(run_rewards(config, run)):
        template, place = None, entry.reward.template_file(entry.options)
        if place is not None:
            try:
                template = read_template(place)
                template.fill(prompt="")
            except DataError as error:
                key = f"{rewards_key(config, run)}.{index}.{entry.name}.template"
                raise ConfigError(f"{config.experiment}: {key}: {error}") from None
        found.append(template)
    return found


def reward_models(config: ExperimentConfig, run: str) -> dict[str, ModelOptions]:
    """By dotted key, the settings of `run`'s rewards that have models of their own."""
    where = rewards_key(config, run)
    return {
        f"{where}.{index}.{entry.name}": entry.options
        for index, entry in enumerate(run_rewards(config, run))
        if isinstance(entry.options, ModelOptions)
    }


def needs_vlm(config: ExperimentConfig, run: str) -> bool:
    """Whether any reward of `run` is built with a VLM."""
    return any(entry.reward.needs_vlm for entry in run_rewards(config, run))


def run_vlm(config: ExperimentConfig, run: str) -> VlmSection:
    """The VLM that rewards `run`."""
    return run_training(config, run).reward_vlm or config.models.vlm


def reward_vlm(
    config: ExperimentConfig, entry: RewardSection | GuardSection, run: str | None = None
) -> VlmSection | None:
    """The VLM that gives one reward (of `run`; None: of the experiment, as for guards); None where it needs none."""
    if not entry.reward.needs_vlm:
        return None
    if entry.vlm is not None:
        return config.models.vlms[entry.vlm]
    return config.models.vlm if run is None else run_vlm(config, run)


def run_vlms(config: ExperimentConfig, run: str) -> dict[str, VlmSection]:
    """The VLMs that the rewards of `run` need, each once, by the dotted key that holds them."""
    own = "models.vlm" if run_training(config, run).reward_vlm is None else f"runs.{run}.reward_vlm"
    found: dict[str, VlmSection] = {}
    for entry in run_rewards(config, run):
        section = reward_vlm(config, entry, run)
        if section is not None and section not in found.values():
            found[own if entry.vlm is None else f"models.vlms.{entry.vlm}"] = section
    return found


def evaluation_steps(config: ExperimentConfig, benchmark: str, run: str) -> list[int]:
    """Steps at which `benchmark` scores `run`, increasing; [0] or [] for the run `base`.

    Raises:
        ConfigError: no such benchmark or run.
    """
    if benchmark not in config.benchmarks:
        raise ConfigError(
            f"{config.experiment}: benchmarks.{benchmark}: no such benchmark (known: {', '.join(config.benchmarks)})"
            f"{maybe(benchmark, config.benchmarks)}"
        )
    entries = [entry for entry in config.evaluate if entry.benchmark == benchmark]
    pairs = is_pairwise(config.benchmarks[benchmark])
    if run == "base":
        return [0] if any(entry.base for entry in entries) and not pairs else []
    if run in config.adapters:
        return [config.adapters[run].step] if entries else []
    checkpoints = run_training(config, run).checkpoint_steps
    steps: set[int] = set()
    for entry in entries:
        named = {"all": checkpoints, "last": checkpoints[-1:]}
        steps.update(named[entry.at] if isinstance(entry.at, str) else entry.at)
    if pairs:
        steps -= {step for name, step in [baseline_of(config, benchmark)] if name == run}
    return sorted(steps)


def baseline_of(config: ExperimentConfig, benchmark: str) -> tuple[str, int]:
    """Run and step whose images a scorer of pairs compares the others with."""
    run, _, step = (config.benchmarks[benchmark].baseline or "base").partition("@")
    return run, int(step or 0)


def dump_yaml(config: ExperimentConfig) -> str:
    """The configuration with every default written out; `load_experiment` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def load_site(raw: dict[str, Any], source: str = "config/config.yaml") -> SiteConfig:
    """Validate the site configuration.

    Raises:
        ConfigError: one line per problem.
    """
    sections, problems = check_sections(SiteConfig, raw)
    _report(problems, source)
    return SiteConfig(**sections)
