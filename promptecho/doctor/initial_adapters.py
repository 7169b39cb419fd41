"""Whether the adapter that a run begins with (`training.init_adapter`) fits what the run trains, where it is on this
machine; training itself would tell when it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptecho.config import ExperimentConfig, run_training
from promptecho.config.families import family_named
from promptecho.config.initial import initial_adapter
from promptecho.doctor.finding import Finding, fine, problem
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError
from promptecho.shipped import model_path


def initial_misfits(config: ExperimentConfig) -> dict[str, str]:
    """Run -> what does not fit of the adapter that it begins with, with the keys to set; "" where all does. Adapters
    and models that only a hub has are left out, and checkpoints of other runs, whose settings were compared already."""
    found = {}
    for run in config.runs:
        initial, training = initial_adapter(config, run), run_training(config, run)
        if initial is None or initial.step is not None:
            continue
        entry = config.adapters[initial.name]
        source, model = Path(entry.adapter).expanduser(), Path(model_path(config.models.t2i.path, "t2i")).expanduser()
        if not source.exists() or not model.is_dir():
            continue
        from promptecho.t2i.external import load_target, read_adapter
        from promptecho.t2i.initial import check_initial

        try:
            family = family_named(config.models.t2i.family)
            targets = {"all": family.lora_targets, "attention": family.lora_attention}
            _, path, lora = read_adapter(source, family, entry.alpha)
            check_initial(lora, load_target(family, str(model)).linears, training.lora, targets, path)
            found[run] = ""
        except PromptEchoError as error:
            found[run] = str(error)
    return found


def initial_adapters(preflight: Preflight) -> Iterator[Finding]:
    """The adapters that runs begin with."""
    if not preflight.names("train"):
        return
    for run, told in initial_misfits(preflight.config).items():
        if told:
            yield problem(f"runs.{run}: {told}", JOBS["train"], "the run trains an adapter of the same form")
        else:
            yield fine(f"runs.{run}.init_adapter: fits the adapter that the run trains")
