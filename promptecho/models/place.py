"""Where this process finds models: a fact of the machine that it runs on, so kept once per process.

A command that reads an experiment's configuration does it through `job_config`, before it imports torch, transformers
or diffusers: whether the hub may be asked has to be known by then. Library code that loads a model asks `locate` or
`at_hand`. Without `job_config` nothing is looked up, staged or forbidden.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from promptecho.config import ExperimentConfig, load_experiment
from promptecho.errors import ModelError
from promptecho.models.record import HUB_ID, revision_problem
from promptecho.shipped import ROOT as SHIPPED


@dataclass
class Place:
    """Folder of fetched models, whether the hub is out of bounds, where nodes keep copies."""

    root: Path | None = None
    offline: bool = False
    staging: str | None = None
    staging_seconds: float = 0.0  # spent by this process so far


_place = Place()


def job_config(path: str | Path) -> ExperimentConfig:
    """`load_experiment` for a process that will load models: what the site says of them holds from here on."""
    config = load_experiment(path)
    use(config)
    return config


def use(config: ExperimentConfig) -> None:
    """Find models as `config` says, from here on."""
    global _place
    root = config.models_root
    _place = Place(Path(root) if root else None, config.models_offline, config.models_staging)
    if config.models_offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
        if constants := sys.modules.get("huggingface_hub.constants"):
            constants.HF_HUB_OFFLINE = True


def staging_seconds() -> float:
    """What this process has spent on staging so far, waiting for others included."""
    return _place.staging_seconds


def locate(path: str, revision: str | None = None) -> str:
    """A folder as it is; for a hub id its folder in `models_root` where it is there, else the hub id itself.

    Raises:
        ModelError: the folder was fetched at another revision; or the hub is out of bounds and its cache here does not
            have the model.
    """
    folder = Path(path).expanduser()
    hub_id = HUB_ID.fullmatch(path) is not None
    if hub_id and _place.root is not None and (_place.root / path).is_dir():
        folder = _place.root / path
    if folder.is_dir():
        if problem := revision_problem(folder, revision):
            raise ModelError(problem)
        return str(folder)
    if hub_id and _place.offline and not cached(path, revision):
        at = "" if revision is None else f" at revision {revision}"
        where = f"neither in {_place.root} nor in" if _place.root else "not in"
        raise ModelError(
            f"{path}: {where} the hub's cache on this machine{at}, and jobs do not ask the hub (models.offline); where "
            "there is internet: promptecho models fetch --config FILE"
        )
    return path


def at_hand(path: str, revision: str | None = None) -> str:
    """Where to load a model from: `locate`, and with staging its copy on this node's disk."""
    found = locate(path, revision)
    folder = Path(found)
    if _place.staging is None or not folder.is_dir() or folder.is_relative_to(SHIPPED):
        return found
    from promptecho.models.staging import staged

    start = time.monotonic()
    try:
        return staged(found, _place.staging)
    finally:
        _place.staging_seconds += time.monotonic() - start


def cached(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub's cache on this machine; None where there is none."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for name in ("model_index.json", "config.json", "adapter_config.json", "pytorch_lora_weights.safetensors"):
        file = try_to_load_from_cache(hub_id, name, revision=revision)
        if isinstance(file, str):
            return Path(file).parent
    return None
