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

from promptecho import plugins
from promptecho.config.extends import read_experiment
from promptecho.config.load import dump_yaml, load_site, parse_experiment
from promptecho.config.models import NOT_WRITTEN, ExperimentConfig, SiteConfig
from promptecho.config.slices import config_digest
from promptecho.config.suggestions import keys_at, meant_keys
from promptecho.config.yaml_files import deep_merge
from promptecho.errors import ConfigError
from promptecho.files import write_text
from promptecho.hub_record import revision_problem
from promptecho.shipped import is_shipped
from promptecho.suggest import closest, maybe

# Keys that `--config` takes beside those of the site's file and the experiments' names.
COMMAND_LINE = ("set", "retrain")


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
        known = _experiments(Path(site.experiments_dir))
        raise ConfigError(f"{path}: no such experiment (known: {', '.join(known) or 'none'}){maybe(name, known)}")
    changes = overrides.get(name, [])
    raw = as_written(_apply(read_experiment(path), changes, str(path)), str(path))
    raw["experiment"] = name
    if raw.get("plugins"):
        raw["plugins_folder"] = site.experiments_dir
        if site.allow_plugins:
            plugins.allow()
    offline = site.models.offline
    raw["models_offline"] = site.models_root is not None if offline is None else offline
    raw["models_staging"] = site.models.staging
    cache = site.models.prompt_cache
    raw["models_prompt_cache"] = cache and cache.replace("{experiment}", name)
    raw["models_prompt_cache_gb"] = site.models.prompt_cache_gb
    if site.models_root is not None:
        raw["models_root"] = site.models_root
        _find_models(raw, Path(site.models_root), str(path))
    try:
        return parse_experiment(raw, str(path), path.resolve().parent.parent / "presets", path)
    except ConfigError as error:
        raise ConfigError(_where_it_was_given(str(error), str(path), name, changes)) from None


def write_resolved(config: ExperimentConfig, folder: str | Path) -> Path:
    """Write `folder/DIGEST.yaml` unless it is there already, and return its path."""
    path = Path(folder) / f"{config_digest(config)}.yaml"
    if not path.exists():
        write_text(path, dump_yaml(config))
    return path


def as_written(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """An experiment file's content, if it holds none of the keys that come from elsewhere.

    Raises:
        ConfigError: it does; one line for each.
    """
    problems = [f"{source}: {key}: is not written in an experiment file; {_NOT_HERE[key]}" for key in _NOT_HERE]
    problems = [problem for key, problem in zip(_NOT_HERE, problems, strict=True) if key in raw]
    if problems:
        raise ConfigError("\n".join(problems))
    return raw


_NOT_HERE = {key: "remove it: it comes from config/config.yaml" for key in NOT_WRITTEN} | {
    "experiment": "remove it: the file's name is the experiment's",
    "plugins_folder": "remove it: plugins lie beside the experiment file, or on Python's path",
    "adapters": "a published adapter is an entry of `runs`, such as `authors: {adapter: owner/name}`",
}


def _where_it_was_given(problems: str, source: str, name: str, changes: list) -> str:
    """A key that the command line gave is told with the command line as its place, not the file."""
    given = {change[0] for change in changes if isinstance(change, tuple)}
    try:
        content = read_experiment(Path(source))
    except ConfigError:
        content = {}
    sections = {".".join(path.split(".")[:end]) for path in given for end in range(1, path.count(".") + 1)}
    given |= {section for section in sections if not _holds(content, section)}
    lines = []
    for line in problems.splitlines():
        key = line.removeprefix(f"{source}: ").partition(": ")[0]
        if key in given:
            line = f"--config set={name}.{line.removeprefix(f'{source}: ')}"
        lines.append(line)
    return "\n".join(lines)


def _holds(content: Any, path: str) -> bool:
    """Whether a file's content has something at a dotted path."""
    for key in path.split("."):
        if isinstance(content, list) and key.isdecimal() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict) and key in content:
            content = content[key]
        else:
            return False
    return True


def _experiments(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _beside_the_site(raw: dict[str, Any], folder: Path) -> None:
    """Keys that neither the site's file nor `--config` knows.

    Raises:
        ConfigError: one line for each, with what was meant where that can be guessed.
    """
    known = [*SiteConfig.model_fields, *COMMAND_LINE, *_experiments(folder)]
    problems = []
    for key in raw:
        if key in known:
            continue
        section = key in keys_at(())
        near = closest(key, known, 0.8) or (None if section else closest(key, known))
        of_experiment = [] if near else meant_keys((key,))
        if near:
            text = f"is not a known key; did you mean {near}?"
        elif section or of_experiment:
            path = key if section else of_experiment[0]
            text = f"is a key of experiments; on the command line it is written --config set=EXPERIMENT.{path}=VALUE"
        else:
            text = f"is not a known key; known: {', '.join(known)}"
        problems.append(f"config/config.yaml or --config: {key}: {text}")
    if problems:
        raise ConfigError("\n".join(problems))


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
    _beside_the_site(raw, folder)
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
    found |= {f"models.vlms.{key}": model for key, model in _mapping(found.pop("models.vlms", None)).items()}
    trainings = {"training": raw.get("training")}
    trainings |= {f"runs.{name}": run for name, run in _mapping(raw.get("runs")).items()}
    found |= {f"{key}.reward_vlm": _mapping(training).get("reward_vlm") for key, training in trainings.items()}
    problems = []
    for key, model in found.items():
        path = _mapping(model).get("path")
        if isinstance(path, str) and not is_shipped(path) and not Path(path).is_absolute() and (root / path).is_dir():
            model["path"] = str(root / path)
            if problem := revision_problem(root / path, model.get("revision")):
                problems.append(f"{source}: {key}.revision: {problem}")
    if problems:
        raise ConfigError("\n".join(problems))


def _mapping(value: Any) -> dict[str, Any]:
    """What is not a mapping is reported later, when the sections are validated."""
    return value if isinstance(value, dict) else {}
