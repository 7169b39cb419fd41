"""Configuration: pydantic models that are the one truth for keys, defaults, documentation and validation."""

from promptecho.config.load import (
    baseline_of,
    dump_yaml,
    evaluation_steps,
    load_experiment,
    load_site,
    needs_vlm,
    parse_experiment,
    reward_templates,
    run_rewards,
    run_training,
    run_vlm,
)
from promptecho.config.models import ExperimentConfig, SiteConfig
from promptecho.config.resolve import resolve, resolve_experiment, write_resolved
from promptecho.config.slices import code_digest, config_digest, slice_digest
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
    "resolve",
    "resolve_experiment",
    "reward_templates",
    "run_rewards",
    "run_training",
    "run_vlm",
    "slice_digest",
    "write_resolved",
]
