"""Where this process finds models: a fact of the machine that it runs on, so kept once per process.

A command that reads an experiment's configuration does it through `job_config`, before it imports torch, transformers
or diffusers: whether the hub may be asked has to be known by then. Library code that loads a model calls `locate_model`
or `stage_model`. Without `job_config` no models folder is searched, nothing is staged, and the hub may be asked.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.config import ExperimentConfig, load_experiment
from promptecho.config.families import INDEX
from promptecho.errors import DataError, ModelError
from promptecho.files import read_json
from promptecho.hub_record import HUB_ID, revision_problem
from promptecho.models import hub_access
from promptecho.shipped import CLIPS, VLMS, WEIGHTS, WORLDS, model_path, weights_of
from promptecho.suggest import maybe

# Of each kind of model a file that all of that kind have; the last two are ImageReward's and its tokenizer's.
KNOWN_BY = (
    "model_index.json", "config.json", "adapter_config.json", "pytorch_lora_weights.safetensors", "med_config.json",
    "vocab.txt",
)  # fmt: skip


@dataclass
class ModelAccess:
    """Folder of fetched models, whether the hub may be asked, where nodes keep copies."""

    root: Path | None = None
    offline: bool = False
    staging: str | None = None
    staging_seconds: float = 0.0  # spent by this process so far
    config: ExperimentConfig | None = None


_access = ModelAccess()


def job_config(path: str | Path, *, with_trackers: bool = False) -> ExperimentConfig:
    """`load_experiment` for a process that will load models: from now on, the site's settings for models apply."""
    config = load_experiment(path, with_trackers=with_trackers)
    use(config)
    return config


def use(config: ExperimentConfig) -> None:
    """From now on, locate models as `config` says."""
    global _access
    root = config.models_root
    _access = ModelAccess(Path(root) if root else None, config.models_offline, config.models_staging, config=config)
    if config.models_offline:
        _forbid()


def _forbid() -> None:
    """From now on the hub's client makes no request."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
    if "huggingface_hub.constants" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def staging_seconds() -> float:
    """What this process has spent on staging so far, waiting for others included."""
    return _access.staging_seconds


def locate_model(path: str, revision: str | None = None) -> str:
    """A folder as it is; for a hub id its folder in `models_root` where it is there, else the hub id itself.

    Raises:
        ModelError: the folder was fetched at another revision; or neither it nor the hub's cache here has the model,
            and the hub may not be asked or does not answer.
    """
    folder = Path(path).expanduser()
    hub_id = HUB_ID.fullmatch(path) is not None
    if hub_id and _access.root is not None and (_access.root / path).is_dir():
        folder = _access.root / path
    if folder.is_dir():
        from promptecho.models.selection import pointers_in

        if problem := revision_problem(folder, revision) or pointers_in(folder):
            raise ModelError(problem)
        return str(folder)
    if hub_id:
        _check_hub(path, revision)
    return path


def check_model_path(
    path: str | Path, what: str = "VLM", revision: str | None = None, files: Sequence[str] = ("config.json",)
) -> str:
    """Return `path` as text if it is a model folder or could be a hub id (`owner/name`); of a fetched model its folder.

    Raises:
        ModelError: it looks like a local path and is not a folder with all `files`; or it is not on this machine and
            the hub may not be asked.
    """
    text = locate_model(str(path), revision)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if absent := [name for name in files if not (folder / name).is_file()]:
            if (folder / INDEX).is_file():
                raise ModelError(f"{text}: holds a text-to-image pipeline, no {what}; give the folder of a {what}")
            raise ModelError(
                f"{text}: the {what} folder has no {' and no '.join(absent)}; download or copy the whole model again"
            )
        return str(folder)
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1 or text.endswith("/"):
        near = maybe(text, {"VLM": (*WORLDS, *VLMS), "CLIP": CLIPS}.get(what, ()))
        raise ModelError(f"{text}: no such {what} folder; download the model there or correct the path{near}")
    return text


def check_pipeline_path(path: str, revision: str | None = None) -> str:
    """Return where a text-to-image pipeline is, by its shipped name, folder or hub id; a hub id that only the hub has
    is returned as it is.

    Raises:
        ModelError: it is a VLM, a folder of something else, or neither a folder nor a hub id.
    """
    if path in VLMS | CLIPS:
        raise ModelError(
            f"{path}: is a {'VLM' if path in VLMS else 'CLIP'}; text-to-image models ship as {' and '.join(WORLDS)}"
        )
    text = locate_model(model_path(path, "t2i"), revision)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            other = "; it may be a VLM or a part of a pipeline" if (folder / "config.json").is_file() else ""
            raise ModelError(
                f"{text}: holds no text-to-image pipeline, as it has no {INDEX}{other}; give a pipeline's folder"
            )
    elif HUB_ID.fullmatch(text) is None:
        near = maybe(path, WORLDS)
        raise ModelError(f"{text}: no such folder of a text-to-image pipeline; correct the path{near}")
    return text


def check_vae_path(path: str | Path) -> str:
    """Return `path` as text if it is a folder of a pipeline's VAE, such as its part `vae` or what `train-vae` writes.

    Raises:
        ModelError: it is not.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{path}: no such VAE folder; correct the path")
    try:
        config = read_json(folder / "config.json")
    except (DataError, OSError):
        config = None
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != "AutoencoderKL":
        part = folder / "vae"
        fix = f"give {part}" if part.is_dir() else "give a pipeline's folder vae, or one that train-vae has written"
        raise ModelError(f"{path}: holds no VAE (its config.json names no AutoencoderKL); {fix}")
    return str(folder)


def _check_hub(hub_id: str, revision: str | None) -> None:
    """The hub's client asks a hub that does not answer for minutes, file by file: so it is asked once, with a short
    time limit.

    Raises:
        ModelError: the model is not here, and the hub may not be asked or does not answer.
    """
    here = locate_cached(hub_id, revision)
    if _access.offline or hub_access.forbidden():
        why = "jobs do not ask the hub (models.offline)" if _access.offline else "HF_HUB_OFFLINE is set"
    elif (reason := hub_access.unreachable(hub_access.endpoint())) is not None:
        why = f"the hub ({hub_access.shown(hub_access.endpoint())}) does not answer ({reason})"
        if here:
            print(f"promptecho: {hub_id}: from the hub's cache here, as {why}", file=sys.stderr, flush=True)
            _forbid()
    else:
        return
    if not here:
        at = "" if revision is None else f" at revision {revision}"
        where = f"neither in {_access.root} nor in" if _access.root else "not in"
        raise ModelError(
            f"{hub_id}{_key_of(hub_id)}: {where} the hub's cache on this machine{at}, and {why}; where there is "
            "internet: promptecho models fetch --config FILE"
        )


def _key_of(source: str) -> str:
    """Which keys of this process's configuration name a model, in brackets; empty if no key does."""
    if _access.config is None:
        return ""
    from promptecho.models.required import required_models

    keys = [key for model in required_models(_access.config) if model.source == source for key in model.keys]
    return f" ({', '.join(keys)})" if keys else ""


def stage_model(path: str, revision: str | None = None) -> str:
    """Where to load a model from: `locate_model`, and with staging its copy on this node's disk."""
    found = locate_model(path, revision)
    folder = Path(found)
    ships = any(folder.is_relative_to(weights_of(world)) for world in WEIGHTS)
    if _access.staging is None or not folder.is_dir() or ships:
        return found
    from promptecho.models.staging import staged

    start = time.monotonic()
    try:
        return staged(found, _access.staging)
    finally:
        _access.staging_seconds += time.monotonic() - start


def locate_cached(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub's cache on this machine; None where there is none."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for name in KNOWN_BY:
        file = try_to_load_from_cache(hub_id, name, revision=revision)
        if isinstance(file, str):
            return Path(file).parent
    return None
