"""Which rewards an audit compares: each with every VLM and query that it takes, and under a label of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from promptecho.audit.rated import Candidate, changed_settings
from promptecho.captions.settings import CaptionSettings
from promptecho.config.descriptors import REWARDS, reward_named
from promptecho.config.load import run_rewards, run_vlm
from promptecho.config.rewards import RewardSection, VlmSection
from promptecho.errors import ConfigError
from promptecho.suggest import maybe


def candidates_of(
    settings: CaptionSettings, config: Path | None, vlms: Sequence[str], queries: Sequence[str], rewards: Sequence[str],
    dtype: str | None, trust_remote_code: bool,
) -> list[Candidate]:  # fmt: skip
    """In the order of the command line or of the configuration, whose runs count, too; each once.

    Args:
        vlms, queries, rewards: what the command line names; empty: those of the configuration.

    Raises:
        ConfigError: an unknown reward, no VLM for one that needs it, or two entries of one list of the configuration
            that the audit cannot tell apart.
    """
    known = REWARDS.names()
    for name in rewards:
        if name not in known:
            raise ConfigError(f"--reward {name}: no such reward (known: {', '.join(known)}){maybe(name, known)}")
    asked: list[tuple[str, Any, str | None, str | None]] = []
    for key, entries in _lists(settings):
        chosen = [(index, entry) for index, entry in enumerate(entries) if not rewards or entry.name in rewards]
        _check_differ(f"{config}: {key}", chosen, settings)
        asked += [_asked(entry, settings) for _, entry in chosen]
    found = [name for name, *_ in asked]
    for name in rewards or ([] if asked else ["echo"]):
        if name not in found:
            options = reward_named(name).options
            asked.append((name, None if options is None else options(), settings.pick("query", None), None))
    models = _models(settings, vlms, dtype, trust_remote_code)
    common = [one for one in models if one.pop("common")]
    made: dict[str, Candidate] = {}
    for name, options, own, vlm in asked:
        descriptor = reward_named(name)
        several: list[str | None] = [own] if "query" in descriptor.takes else [None]
        if queries and "query" in descriptor.takes:
            several = list(dict.fromkeys(queries))
        if not descriptor.needs_vlm:
            new = [Candidate(name, options=options)]
        elif not models:
            raise ConfigError(f"reward {name}: needs a VLM; give --vlm, or a --config that names it")
        else:
            section = settings.own_vlm(vlm) if vlm is not None and not vlms else None
            chosen_models = common if section is None else [one for one in models if _is(one, section, dtype)]
            new = [Candidate(name, query=one, options=options, **model) for model in chosen_models for one in several]
        made |= {one.label: one for one in new if one.label not in made}
    return list(made.values())


def _lists(settings: CaptionSettings) -> Iterator[tuple[str, Sequence[RewardSection]]]:
    """Dotted key and entries of each list of rewards in the configuration."""
    yield "rewards", settings.rewards
    for run, own in settings.experiment.runs.items() if settings.experiment else ():
        if own.rewards:
            yield f"runs.{run}.rewards", run_rewards(settings.experiment, run)  # type: ignore[arg-type]


def _asked(entry: RewardSection, settings: CaptionSettings) -> tuple[str, Any, str | None, str | None]:
    return entry.name, entry.options, entry.query or settings.pick("query", None), entry.vlm


def _check_differ(key: str, entries: Sequence[tuple[int, RewardSection]], settings: CaptionSettings) -> None:
    """Raises:
    ConfigError: two entries differ in nothing that the audit asks about.
    """
    before: dict[tuple, tuple[int, RewardSection]] = {}
    for index, entry in entries:
        name, options, query, vlm = _asked(entry, settings)
        same = (name, query, vlm, changed_settings(name, options))
        if same in before:
            other, first = before[same]
            keys = [one for one in ("weight", "label", "batch_size") if getattr(first, one) != getattr(entry, one)]
            keys += [f"{name}.{one}" for one in sorted(reward_named(name).not_in_digest)
                     if getattr(first.options, one) != getattr(options, one)]  # fmt: skip
            why = f" (they differ in {' and '.join(keys)}, which the audit does not use)" if keys else ""
            raise ConfigError(
                f"{key}.{index}: the audit asks nothing else of it than of {other}{why}; leave one of them out, in a "
                "copy of the file if training needs both"
            )
        before[same] = (index, entry)


def _models(
    settings: CaptionSettings, vlms: Sequence[str], dtype: str | None, trust_remote_code: bool
) -> list[dict[str, Any]]:
    """The VLMs of the command line (also by their names in `models.vlms`), or all that the configuration's runs are
    rewarded by; `common` are those of rewards that name none."""
    given = VlmSection(path="given", dtype="float32")
    sections: list[tuple[VlmSection, bool]] = []
    if vlms:
        sections = [(settings.own_vlm(one) or given.model_copy(update={"path": one}), True) for one in vlms]
    elif settings.experiment is not None:
        runs, named = settings.experiment.runs, settings.experiment.models.vlms
        used = dict.fromkeys(entry.vlm for _, entries in _lists(settings) for entry in entries if entry.vlm is not None)
        sections = [(one, True) for one in (settings.vlm, *(run_vlm(settings.experiment, run) for run in runs)) if one]
        sections += [(named[name], False) for name in used]
    found: dict[tuple, dict[str, Any]] = {}
    for one, common in sections:
        key = _identity(one, dtype)
        found.setdefault(key, {
            "vlm": one.path, "revision": one.revision, "dtype": key[-1],
            "trust_remote_code": trust_remote_code or one.trust_remote_code, "common": common,
        })  # fmt: skip
    models = list(found.values())
    return [one | {"model_label": _model_label(one, models)} for one in models]


def _identity(section: VlmSection, dtype: str | None) -> tuple[str, str | None, str]:
    return section.path, section.revision, dtype or section.dtype


def _is(model: dict[str, Any], section: VlmSection, dtype: str | None) -> bool:
    return (model["vlm"], model["revision"], model["dtype"]) == _identity(section, dtype)


_MODEL_LABELS: tuple[Callable[[dict[str, Any]], str], ...] = (
    lambda one: Path(one["vlm"]).name,
    lambda one: one["vlm"],
    lambda one: f"{one['vlm']} @ {one['revision'] or 'as it is'}",
    lambda one: f"{one['vlm']} @ {one['revision'] or 'as it is'}, {one['dtype']}",
)


def _model_label(model: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """The shortest of several names that no other model has, too."""
    counts = [Counter(told(one) for one in models) for told in _MODEL_LABELS]
    names = [told(model) for told in _MODEL_LABELS]
    return next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
