"""Where the models of a configuration are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from promptecho.config import ExperimentConfig, load_site, read_yaml
from promptecho.errors import DataError
from promptecho.hub_record import RECORD, HubRecord, read_record, revision_problem
from promptecho.models import hub_access
from promptecho.models.completeness import incompleteness
from promptecho.models.fetch import changed_files
from promptecho.models.locate import locate_cached
from promptecho.models.required import RequiredModel, required_models
from promptecho.models.selection import pointers_in
from promptecho.shipped import is_shipped, model_path

SITE = Path("config/config.yaml")
FETCH = "promptecho models fetch --config FILE"


@dataclass(frozen=True)
class ModelStatus:
    """A model and its place. `path` None: it is not here; `bytes` None: not known. `problem`: why it cannot be used.

    `elsewhere` is ModelScope, which keeps its own cache and is not looked into.
    """

    model: RequiredModel
    where: Literal["shipped", "folder", "models_root", "hub cache", "missing", "elsewhere"]
    path: str | None = None
    bytes: int | None = None
    record: HubRecord | None = None
    problem: str | None = None

    @property
    def ready(self) -> bool:
        return self.problem is None

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "source": self.model.source,
            "kind": self.model.kind,
            "used_by": list(self.model.used_by),
            "revision": self.model.revision,
            "where": self.where,
            "path": self.path,
            "commit": self.record.commit if self.record else None,
            "bytes": self.bytes,
            "problem": self.problem,
        }


def models_folder(config: ExperimentConfig, given: Path | None) -> Path | None:
    """The folder of fetched models: as given, as a resolved configuration has it, or as config/config.yaml has it.

    Raises:
        ConfigError: the site's file is at fault.
    """
    if given is not None:
        return given
    if config.models_root:
        return Path(config.models_root)
    if not SITE.is_file():
        return None
    root = load_site(read_yaml(SITE)).models_root
    return Path(root) if root else None


def model_status(model: RequiredModel, root: Path | None) -> ModelStatus:
    """Look for a model where a job would: in `root`, as a folder, in the hub's cache."""
    if is_shipped(model.source):
        shipped = Path(model_path(model.source, "t2i" if model.kind == "pipeline" else "vlm"))
        return _in_folder(model, "shipped", shipped)
    if root is not None and not Path(model.source).is_absolute() and (root / model.source).is_dir():
        return _in_folder(model, "models_root", root / model.source)
    folder = Path(model.source).expanduser()
    if folder.exists():
        return _in_folder(model, "folder", folder)
    if model.kind == "modelscope":
        return ModelStatus(model, "elsewhere")  # ModelScope's hub; docs/benchmarks.md
    if not model.on_hub:
        return ModelStatus(model, "missing", problem="no such folder")
    if (copy := locate_cached(model.source, model.revision)) is not None:
        return ModelStatus(model, "hub cache", str(copy), _size(copy))  # what it lacks, the hub's client fetches
    return ModelStatus(model, "missing", problem="promptecho models fetch gets it")


def unavailable_models(config: ExperimentConfig, keys: set[str]) -> list[str]:
    """A line for each model that `keys` (as in `RequiredModel.used_by`) name and that a job could neither find nor
    download.

    Raises:
        ConfigError: one hub id at two revisions.
    """
    lines = []
    root = Path(config.models_root) if config.models_root else None
    for model in required_models(config):
        if not keys & set(model.used_by) or (found := model_status(model, root)).ready:
            continue
        problem = found.problem
        if found.where == "missing" and model.on_hub:
            if config.models_offline:
                why = "jobs do not ask the hub (models.offline)"
            elif (reason := hub_access.unreachable(hub_access.endpoint())) is not None:
                why = f"the hub ({hub_access.shown(hub_access.endpoint())}) does not answer ({reason})"
            else:
                continue  # the first job fetches it
            place = f"neither in {root} nor in" if root else "not in"
            problem = f"{place} the hub's cache on this machine, and {why}; where there is internet: {FETCH}"
        used = [key for key, name in zip(model.keys, model.used_by, strict=True) if name in keys]
        lines.append(f"{config.experiment}: {', '.join(used)}: {model.source}: {problem}")
    return lines


def verify(found: ModelStatus) -> ModelStatus:
    """Read every file that the model's record names; `problem` then tells which are missing or changed."""
    if found.problem or found.record is None or found.path is None:
        return found
    changed = changed_files(Path(found.path), found.record)
    if not changed:
        return found
    named = ", ".join(f"{name} ({what})" for name, what in list(changed.items())[:5])
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    problem = f"differs from {RECORD}: {named}{more}; promptecho models fetch --full repairs it"
    return ModelStatus(found.model, found.where, found.path, found.bytes, found.record, problem)


def check_ready(models: list[ModelStatus]) -> None:
    """Raise an error that names the models that are not ready; do nothing where all are ready.

    Raises:
        DataError: a line for each.
    """
    lines = [f"{found.model.source} ({found.model.used_by[0]}): {found.problem}" for found in models if found.problem]
    if lines:
        raise DataError("\n".join(lines))


def _in_folder(model: RequiredModel, where: Any, folder: Path) -> ModelStatus:
    record = read_record(folder) if folder.is_dir() else None
    problem = revision_problem(folder, model.revision)
    if problem is None and folder.is_dir():
        problem = pointers_in(folder) or incompleteness(folder, model.kind, model.files)
    return ModelStatus(model, where, str(folder), _size(folder), record, problem)


def _size(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
