"""Validation that reports every problem at once, each with its dotted path.

Pydantic alone stops at two points: checks between keys do not run while one key is wrong, and a key that
`training` gets wrong would be reported once for every run. So each section is validated by itself, faulty
keys are reported, dropped and the rest looked at again; then the sections are checked against each other.
"""

from __future__ import annotations

import copy
import re
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from promptecho.config.benchmarks import BENCHMARKS, benchmark_named
from promptecho.config.compute import compute_problems
from promptecho.config.editing import editing_problems
from promptecho.config.evaluation_checks import (
    Problems,
    benchmark_problems,
    exactly_one,
    image_set_problems,
    no_such,
)
from promptecho.config.families import available_families, family_named, misfit
from promptecho.config.fields import Section
from promptecho.config.image_sizes import frames_problem, size_problems
from promptecho.config.initial import initial_problems
from promptecho.config.models import CaptionsSection, ExperimentConfig
from promptecho.config.rewards import guard_problems, placement_problem, reward_problems
from promptecho.config.suggestions import choices_at, keys_at, unknown_key
from promptecho.config.training import TrainingConfig
from promptecho.config.training_checks import training_problems
from promptecho.config.video_checks import video_problems
from promptecho.shipped import CLIPS, VLMS, WORLDS, model_path
from promptecho.suggest import closest


def check_sections(model: type[Section], raw: dict[str, Any]) -> tuple[dict[str, Any], Problems]:
    """Validate each key of `raw` against `model`'s fields by itself.

    Returns:
        the sections that could be built (faulty keys dropped), and the problems.
    """
    problems: Problems = {}
    sections: dict[str, Any] = {}
    for key in raw:
        if key not in model.model_fields:
            problems[str(key)] = unknown_key((key,), model)
    for key, field in model.model_fields.items():
        if key in raw:
            # A field's own constraints (min_length, ge) sit in its metadata: Annotated brings them back.
            adapter = TypeAdapter(_annotated(field))
            built = _build(adapter, raw[key], (key,), problems, (key,), model)
            if built is not _NOTHING:
                sections[key] = built
        elif field.is_required():
            problems[key] = "is missing"
        else:
            sections[key] = field.get_default(call_default_factory=True)
    return sections, problems


def check_runs(training: Any, runs: Any, problems: Problems) -> dict[str, TrainingConfig]:
    """Validate `training` and every run (already merged over it in `runs[R][0]`, own keys in `runs[R][1]`).

    A problem is reported under `training` unless the run itself sets the key at fault or a key of a failed
    combination.
    """
    adapter = TypeAdapter(TrainingConfig)
    inherited: Problems = {}
    alone = _build(adapter, training, (), inherited, ("training",))
    if alone is _NOTHING:
        problems["training"] = next(iter(inherited.values()))
        return {}
    problems.update({f"training.{path}": message for path, message in inherited.items()})
    built: dict[str, TrainingConfig] = {}
    for name, (merged, own) in runs.items() or [(None, (training, {}))]:
        found: Problems = {}
        config = _build(adapter, merged, (), found, ("training",) if name is None else ("runs", name))
        if config is _NOTHING:
            problems[f"runs.{name}"] = next(iter(found.values()))
            continue
        if name is not None:
            built[name] = config
        for path, message in found.items():
            problems.setdefault(_origin(path, name, own), message)
        for key, message in training_problems(config):
            words = {key.split(".")[0], *re.findall(r"[a-z_0-9]+", message)}
            related = words & set(TrainingConfig.model_fields)
            if any(path.split(".")[0] in related for path in found):
                continue  # one of its keys is faulty and was replaced by its default
            own_key = name is not None and any(word in own for word in related)
            problems[f"runs.{name}.{key}" if own_key else f"training.{key}"] = message
    return built


def _origin(path: str, run: str | None, own: Any) -> str:
    """Where the key at `path` was written: in the run, or in `training`."""
    value = own
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return f"training.{path}"
        value = value[part]
    return f"runs.{run}.{path}"


_NOTHING = object()


def _annotated(field: Any) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _build(
    adapter: TypeAdapter, value: Any, path: tuple, problems: Problems, place: tuple,
    root: type[Section] = ExperimentConfig,
) -> Any:  # fmt: skip
    """Validate `value`; report what is wrong, drop it and try again. `_NOTHING` where that cannot help.

    Args:
        path: what the paths of problems begin with; `place`: where `value` stands in the schema of `root`.
    """
    value = copy.deepcopy(value)
    for _ in range(50):
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            dropped = False
            for item in error.errors(include_url=False):
                where = tuple(part for part in item["loc"] if part != "[key]")
                dotted = ".".join(str(part) for part in (*path, *where))
                problems.setdefault(dotted, _message(item, value, where, place, root))
                dropped |= item["type"] != "missing" and _drop(value, where)
            if not dropped:
                return _NOTHING
    return _NOTHING


def _drop(value: Any, where: tuple) -> bool:
    """Remove the innermost mapping key on the way to `where`; False where there is none."""
    holder = None
    for part in where:
        if isinstance(value, dict):
            holder = (value, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
    if holder is None:
        return False
    holder[0].pop(holder[1], None)
    return True


def _message(item: ErrorDetails, value: Any, where: tuple, place: tuple, root: type[Section]) -> str:
    if item["type"] == "missing":
        return "is missing"
    path = (*place, *where)
    if item["type"] == "extra_forbidden":
        return unknown_key(path, root)
    if item["type"] == "invalid_key":
        return f"YAML reads this key as {item['input']!r}, which is no text; put it in quotes"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_pattern_mismatch":
        message = "must be lower-case letters, digits, '.', '_' or '-', starting with a letter or digit"
    found = item["input"]
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = keys_at(path, root)
        message = "must hold keys with values" + (f", such as `{keys[0]}: ...`" if keys else "")
    shown = "" if isinstance(found, (dict, list)) and len(str(found)) > 40 else f" (found {found!r})"
    meant = closest(found, _choices(path, value, where, root)) if isinstance(found, str) else None
    hint = f"; {item['ctx']['hint']}" if "hint" in item.get("ctx", {}) else ""
    return message[:1].lower() + message[1:] + shown + (f"; did you mean {meant}?" if meant else hint)


def _choices(path: tuple, value: Any, where: tuple, root: type[Section]) -> list[str]:
    """The words that may stand at `path`, where they are few; those that go with the scorer beside them."""
    choices = choices_at(path, root)
    if path[-1:] == ("at",):
        choices = ["all", "last"]
    if path[:1] == ("benchmarks",) and path[-1] in ("backend", "mode"):
        for part in where[:-1]:
            value = value[part]
        scorer = value.get("scorer")
        if scorer in BENCHMARKS.names():
            benchmark = benchmark_named(scorer)
            choices = benchmark.backend_names if path[-1] == "backend" else [*benchmark.modes]
    return choices


def _needs_captions(sections: dict[str, Any]) -> bool:
    """Whether something is trained, or judged on held-out captions; an experiment may evaluate models alone."""
    sets = (sections.get("image_sets") or {}).values()
    return bool(sections.get("runs")) or not sets or any(one.heldout is not None for one in sets)


def cross_problems(sections: dict[str, Any], problems: Problems) -> None:
    """Add what is wrong between sections; those that could not be built are left out."""
    captions = sections.get("captions")
    if captions is not None:
        if captions.writes or captions.prompts is not None or _needs_captions(sections):
            exactly_one(captions, "captions", ("images", "prompts", "shapes"), problems)
        if captions.shapes is not None and captions.heldout >= captions.shapes.count:
            problems.setdefault(
                "captions.heldout",
                f"{captions.heldout} leaves no caption to train on: captions.shapes.count is {captions.shapes.count}",
            )
    image_sets, benchmarks, runs = (sections.get(key) for key in ("image_sets", "benchmarks", "runs"))
    _check_family(sections, problems)
    problems.update(compute_problems(sections))
    for name, image_set in (image_sets or {}).items():
        image_set_problems(name, image_set, sections.get("models"), captions, problems)
    if captions is not None:
        _watched_apart(captions, image_sets or {}, runs or {}, problems)
    for name in {"base"} & {*(runs or {}), *(sections.get("adapters") or {})}:
        problems[f"runs.{name}"] = "`base` is reserved for the untrained model; choose another name"
    for name in sorted({*(runs or {})} & {*(sections.get("adapters") or {})}):
        problems[f"adapters.{name}"] = "is a run already; choose another name"
    for name, message in initial_problems(runs or {}, sections.get("adapters") or {}).items():
        problems.setdefault(f"runs.{name}.init_adapter", message)
    for key, message in reward_problems(sections.get("rewards") or []):
        problems.setdefault(f"rewards.{key}", message)
    for key, message in guard_problems(sections.get("guards") or [], image_sets):
        problems.setdefault(f"guards.{key}", message)
    for name, training in (runs or {}).items():
        rewards = training.rewards or sections.get("rewards") or []
        if rewards and (problem := placement_problem(rewards, training.reward_placement.mode)):
            problems.setdefault("training.reward_placement.mode", f"{problem} (run {name})")
        if training.finetuning == "full" and (models := sections.get("models")) and models.t2i.dtype != "float32":
            problems[f"runs.{name}.finetuning"] = (
                f"full trains the transformer's weights in float32, but models.t2i.dtype is {models.t2i.dtype}; "
                "set models.t2i.dtype: float32, or finetuning: lora"
            )
    _check_named_vlms(sections, problems)
    benchmark_problems(sections, problems)
    for index, entry in enumerate(sections.get("evaluate") or []):
        if benchmarks is not None and entry.benchmark not in benchmarks:
            problems[f"evaluate.{index}.benchmark"] = no_such(entry.benchmark, "benchmarks", benchmarks)
        if isinstance(entry.at, list):
            for run, training in (runs or {}).items():
                beyond = [step for step in entry.at if step not in training.checkpoint_steps]
                if beyond:
                    problems[f"evaluate.{index}.at"] = (
                        f"{', '.join(map(str, beyond))}: no such checkpoint of run {run}, "
                        f"whose checkpoints are {', '.join(map(str, training.checkpoint_steps))}"
                    )
    named = [entry.benchmark for entry in sections.get("evaluate") or []]
    for index, table in enumerate(sections.get("tables") or []):
        if benchmarks is not None and table not in benchmarks:
            problems[f"tables.{index}"] = no_such(table, "benchmarks", benchmarks)
        elif benchmarks is not None and table not in named:
            problems[f"tables.{index}"] = f"{table} has nothing to show: no entry of evaluate names that benchmark"


def _check_named_vlms(sections: dict[str, Any], problems: Problems) -> None:
    """VLMs that rewards name are those of `models.vlms`."""
    if (models := sections.get("models")) is None:
        return
    training = sections.get("training")
    lists = {"rewards": sections.get("rewards"), "training.rewards": training.rewards if training else None}
    lists |= {f"runs.{name}.rewards": run.rewards for name, run in (sections.get("runs") or {}).items()}
    told = set()  # runs have the rewards of `training`, too
    lists |= {"guards": sections.get("guards")}
    for key, entries in lists.items():
        for index, entry in enumerate(entries or []):
            if entry.vlm is None or entry.vlm in models.vlms or (index, entry.vlm) in told:
                continue
            told.add((index, entry.vlm))
            problems.setdefault(f"{key}.{index}.vlm", no_such(entry.vlm, "models.vlms", models.vlms))


def _check_family(sections: dict[str, Any], problems: Problems) -> None:
    t2i = models.t2i if (models := sections.get("models")) else None
    if t2i is None:
        return
    family = family_named(t2i.family)
    if t2i.path in VLMS | CLIPS:
        kind = "VLM" if t2i.path in VLMS else "CLIP"
        problems["models.t2i.path"] = f"{t2i.path} is a {kind}; text-to-image models ship as {' and '.join(WORLDS)}"
    elif problem := misfit(family, model_path(t2i.path, "t2i")):
        problems["models.t2i.path"] = f"{t2i.path}: {problem}"
    else:
        problems.update(size_problems(sections))
        if problem := frames_problem(family, model_path(t2i.path, "t2i"), t2i.frames):
            problems["models.t2i.frames"] = problem
    if "models.t2i.frames" not in problems:
        video_problems(sections, problems)
    problems.update(editing_problems(sections))
    if family.guided_in_one_pass and t2i.negative_prompt:
        problems["models.t2i.negative_prompt"] = f"{family.title} has no negative prompt; remove it"
    padded = {f"adapters.{name}": entry.pad_prompts for name, entry in (sections.get("adapters") or {}).items()}
    for path, value in {"models.t2i": t2i.pad_prompts, **padded}.items():
        if value not in (None, "none") and "pad_prompts" not in family.takes:
            known = [found.thing for found in available_families()]
            takers = " and ".join(one.name for one in known if "pad_prompts" in one.takes)
            problems[f"{path}.pad_prompts"] = f"{family.name} has no such choice; remove it (it is for {takers})"


def _watched_apart(captions: CaptionsSection, image_sets: dict, runs: dict, problems: Problems) -> None:
    """Captions that a run watches exist, and those that it may stop on are none that it is judged on."""
    judged = max((entry.heldout or 0 for entry in image_sets.values()), default=0)
    for training in runs.values():
        watched = training.heldout.prompts
        if watched > captions.heldout:
            message = f"{watched} is more than captions.heldout, which is {captions.heldout}"
        elif training.heldout.patience is not None and watched + judged > captions.heldout:
            message = (
                f"{watched} to stop on and {judged} to be judged on are more than captions.heldout, which is "
                f"{captions.heldout}: a run must not choose its weights by captions that it is judged on"
            )
        else:
            continue
        problems["training.heldout.prompts"] = message
