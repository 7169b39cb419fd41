"""The models that jobs will load: whether they are here and whole, or can be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptecho.config.initial import initial_adapter
from promptecho.config.job_sizes import Stage, asks_elsewhere
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError
from promptecho.models import hub_access
from promptecho.models.completeness import incompleteness
from promptecho.models.inventory import ModelStatus, model_status, models_folder
from promptecho.models.required import RequiredModel, required_models


def models(preflight: Preflight) -> Iterator[Finding]:
    """Each model that the experiment's jobs load."""
    try:
        root = models_folder(preflight.config, None)
        wanted = required_models(preflight.config)
    except PromptEchoError as error:
        yield problem(str(error), JOBS["train"], "correct the configuration")
        return
    for model in wanted:
        if (when := _when(preflight, model)) is None:
            continue
        try:
            yield _of_status(preflight, model_status(model, root), root, when)
        except PromptEchoError as error:  # a damaged record
            yield problem(f"{model.keys[0]}: {error}", when, _fetch(preflight))
        except (ImportError, OSError) as error:  # a Python for Snakemake alone has no client of the hub
            how = "look again with the Python of the jobs, as the user who submits"
            yield unchecked(f"{model.keys[0]}: {model.source}: not looked at: {error}", when, how)


def _of_status(preflight: Preflight, found: ModelStatus, root: Path | None, when: str) -> Finding:
    model = found.model
    key = ", ".join(model.keys)
    if found.where == "elsewhere":
        how = "have a look at ModelScope's cache; docs/benchmarks.md says how it gets there"
        return unchecked(f"{key}: {model.source}: is on ModelScope, whose cache is not looked into", when, how)
    if found.where == "missing" and model.on_hub:
        place = f"neither in {root} nor in" if root else "not in"
        told = f"{key}: {model.source}: {place} the hub's cache on this machine"
        return _from_hub(preflight, model.source, told, when)
    if found.where == "missing":
        return problem(f"{key}: {model.source}: no such folder", when, f"bring the model there, or correct {key}")
    if found.problem is not None:
        return problem(f"{key}: {found.problem}", when, f"models of the hub, {_fetch(preflight)} brings")
    assert found.path is not None, "it is here"
    if found.where == "hub cache" and (lacks := incompleteness(Path(found.path), model.kind, model.files)):
        told = f"{key}: {model.source}: the hub's cache holds a part of it ({lacks})"
        return _from_hub(preflight, model.source, told, when)
    size = "" if found.bytes is None else f", {found.bytes / 1e9:.3g} GB"
    return fine(f"{key}: {model.source}: whole in {found.path}{size}")


def _fetch(preflight: Preflight) -> str:
    return f"promptecho models fetch --config {preflight.source}"


def _from_hub(preflight: Preflight, hub_id: str, told: str, when: str) -> Finding:
    """Of a model that only the hub has."""
    elsewhere = f"where there is internet: {_fetch(preflight)}"
    if preflight.config.models_offline:
        return problem(f"{told}, and jobs do not ask the hub (models.offline)", when, elsewhere)
    if hub_access.forbidden():
        return problem(f"{told}, and jobs do not ask the hub (HF_HUB_OFFLINE is set)", when, elsewhere)
    if not preflight.network:
        return problem(f"{told}; jobs would fetch it from the hub", when, f"fetch it before: {_fetch(preflight)}")
    endpoint = hub_access.endpoint()
    if (reason := hub_access.unreachable(endpoint)) is not None:
        return problem(
            f"{told}, and the hub ({hub_access.shown(endpoint)}) does not answer ({reason})", when, elsewhere
        )
    if (refused := hub_access.refusal(hub_id)) is not None:
        fix = "correct the name, or get access to it on the hub and log in"
        return problem(f"{told}, and the hub ({hub_access.shown(endpoint)}) {refused}", when, fix)
    why = "every job that comes first would fetch it, on a node that may have no internet"
    fetch = f"fetch it once, before anything is submitted: {_fetch(preflight)}"
    return warning(f"{told}; the hub answers", f"{when}: {why}", fetch)


def _when(preflight: Preflight, model: RequiredModel) -> str | None:
    """Which jobs would miss it; None where none is to run."""
    stages: list[Stage] = []
    begins = {one.name for run in preflight.config.runs if (one := initial_adapter(preflight.config, run))}
    for key in model.used_by:
        section, _, name = key.partition(".")
        if key == "models.t2i":
            stages += ["train", "generate"]
        elif key == "models.vlm":
            captions = preflight.names("caption") and not asks_elsewhere(preflight.config)
            stages += ["caption", "train"] if captions else ["train"]
            if any(one.vlm is None and one.reward.needs_vlm for one in preflight.config.guards):
                stages += ["guard"]
        elif key.startswith("models.vlms."):
            stages += ["train", "guard"]
        elif section == "judges" and name.partition(".")[2] in {one.judge for one in preflight.benchmarks.values()}:
            stages += ["judge"]
        elif section == "guards":
            stages += ["guard"]
        elif section == "benchmarks" and name in preflight.benchmarks:
            stages += ["score"]
        elif section in ("runs", "training", "rewards"):
            rewards = section == "rewards" or key.endswith("reward_vlm") or ".rewards." in key
            stages += ["train"] if rewards or (section == "runs" and name in begins) else ["generate"]
    first = next((stage for stage in JOBS if stage in stages and stage in preflight.stages), None)
    return None if first is None else JOBS[first]
