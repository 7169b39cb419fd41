"""From Snakemake's `config` (site file plus `--config`) to validated experiments.

Snakemake takes keys without dots only, so a single value of an experiment is set in one of two ways:

    --config 'shapes={training: {learning_rate: 1e-4}}'
    --config 'set=shapes.training.learning_rate=1e-4 shapes.rewards.0.weight=2'

Values on Snakemake's command line arrive as strings inside mappings; they are read as YAML again here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from promptecho.config.load import deep_merge, load_site, parse_experiment, read_yaml
from promptecho.config.models import FROM_SITE, ExperimentConfig, SiteConfig
from promptecho.errors import ConfigError
from promptecho.models.record import revision_problem


def resolve(raw: dict[str, Any]) -> dict[str, ExperimentConfig]:
    """Validate the site and every experiment it lists.

    Args:
        raw: content of `config/config.yaml` with what `--config` gave merged over it.

    Raises:
        ConfigError: all problems of all files, one line each.
    """
    site, overrides = split_site(raw)
    experiments, problems = {}, []
    for name in dict.fromkeys([*site.experiments, *overrides]):
        try:
            experiments[name] = resolve_experiment(site, name, overrides)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return {name: experiments[name] for name in site.experiments}


def resolve_experiment(site: SiteConfig, name: str, overrides: dict[str, Any]) -> ExperimentConfig:
    """Read, merge and validate one experiment, and find its models in `site.models_root`.

    Raises:
        ConfigError: one line per problem.
    """
    path = Path(site.experiments_dir) / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in Path(site.experiments_dir).glob("*.yaml"))
        raise ConfigError(f"{path}: no such experiment (known: {', '.join(known) or 'none'})")
    raw = read_yaml(path)
    for key in ("experiment", *FROM_SITE):
        if key in raw:
            raise ConfigError(f"{path}: {key}: is not written in an experiment file; remove it")
    raw = _apply(raw, overrides.get(name, []), str(path))
    raw["experiment"] = name
    offline = site.models.offline
    raw["models_offline"] = site.models_root is not None if offline is None else offline
    raw["models_staging"] = site.models.staging
    cache = site.models.prompt_cache
    raw["models_prompt_cache"] = cache and cache.replace("{experiment}", name)
    if site.models_root is not None:
        raw["models_root"] = site.models_root
        _find_models(raw, Path(site.models_root), str(path))
    return parse_experiment(raw, str(path))


def split_site(raw: dict[str, Any]) -> tuple[SiteConfig, dict[str, list]]:
    """Part the site's own keys from what is meant for experiments.

    Returns:
        the site, and per experiment a list of changes, each a mapping to merge or a (dotted path, value) pair.
    """
    raw = copy.deepcopy(raw)
    if isinstance(raw.get("experiments"), str):  # --config experiments=zimage,qwenimage
        raw["experiments"] = [name for name in raw["experiments"].replace(",", " ").split() if name]
    changes: dict[str, list] = {}
    assignments = raw.pop("set", None) or []
    folder = Path(str(raw.get("experiments_dir", SiteConfig.model_fields["experiments_dir"].default)))
    for key in [key for key in raw if key not in SiteConfig.model_fields]:
        if (folder / f"{key}.yaml").is_file() and isinstance(raw[key], dict):
            changes.setdefault(key, []).append(_reread(raw.pop(key)))
    for assignment in assignments.split() if isinstance(assignments, str) else assignments:
        path, equals, value = str(assignment).partition("=")
        name, dot, dotted = path.partition(".")
        if not (equals and dot):
            raise ConfigError(f"set: {assignment}: expected EXPERIMENT.dotted.key=VALUE")
        changes.setdefault(name, []).append((dotted, _reread(value)))
    return load_site(raw), changes


def _reread(value: Any) -> Any:
    """Strings to the YAML values they spell, at any depth."""
    if isinstance(value, dict):
        return {key: _reread(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_reread(item) for item in value]
    if isinstance(value, str) and value:
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _apply(raw: dict[str, Any], changes: list, source: str) -> dict[str, Any]:
    for change in changes:
        if isinstance(change, tuple):
            dotted, value = change
            raw = copy.deepcopy(raw)
            _set(raw, dotted.split("."), value, f"{source}: {dotted}")
        else:
            raw = deep_merge(raw, change)
    return raw


def _set(target: Any, parts: list[str], value: Any, source: str) -> None:
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(target, list):
            if not part.isdigit() or int(part) >= len(target):
                raise ConfigError(f"{source}: {part} is not a position in a list of {len(target)}")
            if last:
                target[int(part)] = value
            target = target[int(part)]
        elif isinstance(target, dict):
            if last:
                target[part] = value
            elif target.get(part) is None:
                target[part] = {}
            target = target[part]
        else:
            raise ConfigError(f"{source}: {'.'.join(parts[:index])} holds a value, not keys")


def _find_models(raw: dict[str, Any], root: Path, source: str) -> None:
    """Point every model that lies in the site's folder there: the experiment's, and those of single runs.

    Raises:
        ConfigError: folders were fetched at another revision than is asked for; one line each.
    """
    found = {f"models.{key}": model for key, model in _mapping(raw.get("models")).items()}
    trainings = {"training": raw.get("training")}
    trainings |= {f"runs.{name}": run for name, run in _mapping(raw.get("runs")).items()}
    found |= {f"{key}.reward_vlm": _mapping(training).get("reward_vlm") for key, training in trainings.items()}
    problems = []
    for key, model in found.items():
        path = _mapping(model).get("path")
        if isinstance(path, str) and path != "shapes" and not Path(path).is_absolute() and (root / path).is_dir():
            model["path"] = str(root / path)
            if problem := revision_problem(root / path, model.get("revision")):
                problems.append(f"{source}: {key}.revision: {problem}")
    if problems:
        raise ConfigError("\n".join(problems))


def _mapping(value: Any) -> dict[str, Any]:
    """What is no mapping is reported later, when the sections are validated."""
    return value if isinstance(value, dict) else {}
