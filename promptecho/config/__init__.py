"""Configuration: pydantic models that are the one truth for keys, defaults, documentation and validation.

What stands here is imported when it is first asked for: many commands need one of the light files below alone, and
building all models takes as long as the rest of their start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptecho.config.counted_code import code_digest
    from promptecho.config.load import (
        baseline_of,
        dump_yaml,
        evaluation_steps,
        load_experiment,
        load_site,
        needs_vlm,
        parse_experiment,
        reward_models,
        reward_templates,
        reward_vlm,
        rewards_key,
        run_rewards,
        run_training,
        run_vlm,
        run_vlms,
    )
    from promptecho.config.models import ExperimentConfig, SiteConfig
    from promptecho.config.resolve import resolve_experiment, write_resolved
    from promptecho.config.slices import config_digest, slice_digest
    from promptecho.config.training import TrainingConfig
    from promptecho.config.yaml_files import read_yaml

__all__ = [
    "ExperimentConfig",
    "SiteConfig",
    "TrainingConfig",
    "code_digest",
    "config_digest",
    "baseline_of",
    "dump_yaml",
    "evaluation_steps",
    "load_experiment",
    "load_site",
    "needs_vlm",
    "parse_experiment",
    "read_yaml",
    "resolve_experiment",
    "reward_models",
    "reward_templates",
    "rewards_key",
    "run_rewards",
    "run_training",
    "reward_vlm",
    "run_vlm",
    "run_vlms",
    "slice_digest",
    "write_resolved",
]

_FILES = {"ExperimentConfig": "models", "SiteConfig": "models", "TrainingConfig": "training", "read_yaml": "yaml_files"}
_FILES |= dict.fromkeys(("config_digest", "slice_digest"), "slices") | {"code_digest": "counted_code"}
_FILES |= dict.fromkeys(("resolve_experiment", "write_resolved"), "resolve")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_FILES.get(name, 'load')}"), name)
    globals()[name] = found
    return found
