"""Which models a configuration needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptecho.config import ExperimentConfig, reward_models, run_rewards
from promptecho.config.benchmarks import benchmark_named
from promptecho.config.descriptors import ModelOptions
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.slices import as_written
from promptecho.errors import ConfigError
from promptecho.hub_record import HUB_ID
from promptecho.shipped import is_shipped

ModelKind = Literal["pipeline", "transformers", "adapter", "modelscope", "files", "tokenizer"]


@dataclass(frozen=True)
class RequiredModel:
    """A model and what for: `used_by` are dotted keys of the configuration.

    `source` is a hub id, a folder or a shipped name (`shapes`, `gallery`), as the configuration has it. `code`: Python
    files are wanted too. `files`: exactly these are wanted, of the kinds `files` and `tokenizer`.
    """

    source: str
    kind: ModelKind
    revision: str | None
    used_by: tuple[str, ...]
    code: bool = False
    files: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys that hold `source`."""
        last = {"adapter": "adapter", "tokenizer": "tokenizer"}.get(self.kind)
        return tuple(
            f"{name}.{last or ('model' if name.startswith(('judges.', 'benchmarks.')) else 'path')}"
            for name in self.used_by
        )

    @property
    def on_hub(self) -> bool:
        """Whether it comes from the Hugging Face hub, rather than from a folder here."""
        if is_shipped(self.source) or self.kind == "modelscope" or Path(self.source).expanduser().exists():
            return False
        return HUB_ID.fullmatch(self.source) is not None


def required_models(config: ExperimentConfig) -> list[RequiredModel]:
    """Every model that `config` names or takes by default, each once, in the order of the file.

    Raises:
        ConfigError: one hub id at two revisions: there is one folder for it.
    """
    return merge(_uses(config))


def merge(models: Iterable[RequiredModel]) -> list[RequiredModel]:
    """Each source once, with all that uses it.

    Raises:
        ConfigError: one hub id at two revisions.
    """
    found: dict[tuple[str, ModelKind], RequiredModel] = {}
    for model in models:
        known = found.get((model.source, model.kind))
        if known is None:
            found[model.source, model.kind] = model
            continue
        if model.on_hub and None not in (known.revision, model.revision) and known.revision != model.revision:
            raise ConfigError(
                f"{model.used_by[0]}.revision: {model.revision}, but {known.used_by[0]} has {model.source} at "
                f"{known.revision}; use one revision of a model"
            )
        found[model.source, model.kind] = RequiredModel(
            model.source, known.kind, known.revision or model.revision,
            tuple(dict.fromkeys(known.used_by + model.used_by)), known.code or model.code,
            tuple(dict.fromkeys(known.files + model.files)),
        )  # fmt: skip
    return list(found.values())


def _uses(config: ExperimentConfig) -> Iterator[RequiredModel]:
    t2i = config.models.t2i
    yield RequiredModel(as_written(config, t2i.path), "pipeline", t2i.revision, ("models.t2i",))
    vlms = {"models.vlm": config.models.vlm, "training.reward_vlm": config.training.reward_vlm}
    # A run that only inherits the experiment's model is not listed on its own.
    vlms |= {
        f"runs.{name}.reward_vlm": run.reward_vlm
        for name, run in config.runs.items()
        if run.reward_vlm != config.training.reward_vlm
    }
    captions = config.captions
    brought = captions.writes or captions.prompts is not None  # else nothing is ever trained: models are evaluated
    lists = [run_rewards(config, run) for run in config.runs] or [config.rewards] * brought
    entries = [entry for entries in lists for entry in entries if entry.reward.needs_vlm]
    rewarded = not config.runs and brought or any(entry.vlm is None for entry in entries)
    watching = [guard for guard in config.guards if guard.reward.needs_vlm]
    guarded = any(guard.vlm is None for guard in watching)
    for key, vlm in vlms.items():
        used = rewarded or (key == "models.vlm" and (captions.writes or guarded))
        if vlm is not None and used:
            yield RequiredModel(
                as_written(config, vlm.path), "transformers", vlm.revision, (key,), vlm.trust_remote_code
            )
    named = [*(entry.vlm for entry in entries), *(guard.vlm for guard in watching)]
    for name in dict.fromkeys(one for one in named if one is not None):
        vlm = config.models.vlms[name]
        source = as_written(config, vlm.path)
        yield RequiredModel(source, "transformers", vlm.revision, (f"models.vlms.{name}",), vlm.trust_remote_code)
    for key, options in {
        key: model for run in config.runs for key, model in reward_models(config, run).items()
    }.items():
        yield from _own(config, key, options)
    for index, guard in enumerate(config.guards):
        if isinstance(guard.options, ModelOptions):
            yield from _own(config, f"guards.{index}.{guard.name}", guard.options)
    for name, adapter in config.adapters.items():
        yield RequiredModel(adapter.adapter, "adapter", adapter.revision, (f"runs.{name}",))
    for name, judge in config.judges.models.items():
        if judge_kind(judge.kind).in_process:
            key = f"judges.models.{name}"
            yield RequiredModel(judge.model, "transformers", None, (key,), judge.trust_remote_code)
    for name, benchmark in config.benchmarks.items():
        key = f"benchmarks.{name}"
        models = benchmark_named(benchmark.scorer).backend(benchmark.backend).models
        holds_all = benchmark.model is not None and Path(benchmark.model).expanduser().is_dir()
        for index, (source, kind) in enumerate(models[:1] if holds_all else models):
            yield RequiredModel(source if index else benchmark.model or source, kind, None, (key,))  # type: ignore[arg-type]


def _own(config: ExperimentConfig, key: str, options: ModelOptions) -> Iterator[RequiredModel]:
    """The models of a reward at `key`."""
    for model in options.models.values():
        source = as_written(config, model.source)
        yield RequiredModel(source, model.kind, model.revision, (key,), files=model.files)
