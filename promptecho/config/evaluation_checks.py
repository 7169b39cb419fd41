"""What is wrong with sets of images and benchmarks, as their benchmarks' descriptors have it."""

from __future__ import annotations

from typing import Any

from promptecho.config.benchmarks import Benchmark, available_benchmarks, benchmark_named, takers_of_heldout
from promptecho.config.evaluation import BenchmarkSection, ImageSetSection
from promptecho.config.fields import Section
from promptecho.config.scorers import backend_of, is_pairwise
from promptecho.suggest import closest, maybe

Problems = dict[str, str]  # dotted path -> what is wrong; a dict, so that nothing is reported twice


def benchmark_problems(sections: dict[str, Any], problems: Problems) -> None:
    """Add what is wrong with `benchmarks`; sections that could not be built are left out."""
    captions, image_sets, runs, judges = (sections.get(key) for key in ("captions", "image_sets", "runs", "judges"))
    for name, benchmark in (sections.get("benchmarks") or {}).items():
        _check_backend(f"benchmarks.{name}", benchmark, judges.models if judges else None, problems)
        _check_baseline(f"benchmarks.{name}.baseline", benchmark, runs, sections.get("adapters"), problems)
        if image_sets is None:
            continue
        if benchmark.image_set not in image_sets:
            problems[f"benchmarks.{name}.image_set"] = no_such(benchmark.image_set, "image_sets", image_sets)
        elif image_sets[benchmark.image_set].benchmark != benchmark_named(benchmark.scorer).images:
            problems[f"benchmarks.{name}.scorer"] = (
                f"{benchmark.scorer} cannot score image set {benchmark.image_set}, "
                f"which is of {image_sets[benchmark.image_set].benchmark}"
            )
        elif image_sets[benchmark.image_set].storage == "zip" and not benchmark_named(benchmark.scorer).archives:
            problems[f"image_sets.{benchmark.image_set}.storage"] = _no_archives(benchmark.scorer)
        elif _sees_another_world(benchmark, image_sets[benchmark.image_set], captions):
            problems[f"benchmarks.{name}.backend"] = (
                f"{benchmark.backend} sees {_told(backend_of(benchmark).world)} only; the prompts of image set "
                f"{benchmark.image_set} are neither `shapes` prompts nor held-out captions of `captions.shapes`"
                f"{_of_world(backend_of(benchmark).world)}. "
                f"{_instead(benchmark_named(benchmark.scorer))}"
            )


def image_set_problems(name: str, image_set: ImageSetSection, models: Any, captions: Any, problems: Problems) -> None:
    """Add what is wrong with an entry of `image_sets`."""
    path = f"image_sets.{name}"
    exactly_one(image_set, path, ("prompts", "shapes", "heldout"), problems)
    benchmark = benchmark_named(image_set.benchmark)
    if image_set.heldout is not None and not benchmark.takes_heldout:
        takers = takers_of_heldout(models is not None and models.t2i.frames > 1)
        problems[f"{path}.heldout"] = f"held-out captions are no {benchmark.name} prompts; set benchmark: {takers}"
    elif image_set.heldout is not None and captions is not None and image_set.heldout > captions.heldout:
        problems[f"{path}.heldout"] = f"{image_set.heldout} is more than captions.heldout, which is {captions.heldout}"
    if benchmark.square_images and models is not None and len(set(image_set.size(models.t2i))) > 1:
        height, width = image_set.size(models.t2i)
        problems[f"{path}.height"] = f"{height} x {width}: {benchmark.square_images}; set height and width"
    if benchmark.images_per_prompt and image_set.images_per_prompt != benchmark.images_per_prompt[0]:
        number, why = benchmark.images_per_prompt
        problems[f"{path}.images_per_prompt"] = f"{why}; set it to {number}"
    if image_set.job is not None and image_set.keep != "loose":
        problems[f"{path}.job"] = (
            f"images that are made together are looked at again whenever one of them is missing, so they stay as they "
            f"are: set {path}.keep to loose, or job to null"
        )
    if image_set.storage == "zip" and not benchmark.archives:
        problems[f"{path}.storage"] = _no_archives(benchmark.name)
    if image_set.shapes is not None and benchmark.shapes and not getattr(benchmark, image_set.shapes.world):
        problems[f"{path}.shapes.world"] = f"makes no {benchmark.name} prompts; leave it out"
    elif image_set.shapes is not None and not benchmark.shapes:
        others = "heldout or prompts" if benchmark.takes_heldout else "prompts"
        problems[f"{path}.shapes"] = f"makes no {benchmark.name}; give {others}"


def _no_archives(benchmark: str) -> str:
    return f"{benchmark} does not say that it reads images from ZIP files (docs/extending.md, archives); take files"


def _check_backend(path: str, benchmark: BenchmarkSection, judges: dict | None, problems: Problems) -> None:
    scorer, chosen = benchmark_named(benchmark.scorer), None
    if benchmark.backend not in scorer.backend_names:
        has = ", ".join(scorer.backend_names)
        problems[f"{path}.backend"] = f"{scorer.name} has no {benchmark.backend}; it has {has}"
    else:
        chosen = backend_of(benchmark)
    if chosen is not None and chosen.is_judge != (benchmark.judge is not None):
        problems[f"{path}.judge"] = "names a key of judges.models; it goes with backend: judge, and only with it"
    elif benchmark.judge is not None and judges is not None and benchmark.judge not in judges:
        problems[f"{path}.judge"] = no_such(benchmark.judge, "judges.models", judges)
    judged = chosen is not None and chosen.is_judge
    if benchmark.questions_per_call > 1 and not (scorer.questions_per_call and judged):
        takers = " or ".join(found.thing.name for found in available_benchmarks() if found.thing.questions_per_call)
        problems[f"{path}.questions_per_call"] = f"only for scorer {takers} with backend judge; remove it"
    elif benchmark.questions_per_call > 1 and benchmark.parser == "official":
        problems[f"{path}.questions_per_call"] = "parser official reads one answer a call; set one of them otherwise"
    if benchmark.mode not in scorer.modes:
        problems[f"{path}.mode"] = f"{scorer.name} has only official: its published rules have no bug to fix"


def _instead(benchmark: Benchmark) -> str:
    """Backends for images of the real world; named in the error where the embedded world's oracle is used for them."""
    others = benchmark.real_backends
    if not others:
        return benchmark.instead_of_oracle or "Take another benchmark for them"
    need = " with a model of judges.models as `judge`" if any(one.is_judge for one in others) else ""
    return f"Write backend: {' or '.join(one.name for one in others)}{need} (docs/benchmarks.md)"


def _check_baseline(
    path: str, benchmark: BenchmarkSection, runs: dict | None, adapters: dict | None, problems: Problems
) -> None:
    if benchmark.baseline is None or benchmark.baseline == "base":
        return
    run, at, step = benchmark.baseline.partition("@")
    if not is_pairwise(benchmark):
        problems[path] = f"{benchmark.scorer} compares no pairs of images; remove it"
    elif not (at and step.isdecimal()):
        near = closest(run, ["base"]) if not at else None
        meant = f"; did you mean {near}?" if near else ""
        problems[path] = f"expected base or RUN@STEP (found {benchmark.baseline!r}){meant}"
    elif runs is not None and run not in {**runs, **(adapters or {})}:
        problems[path] = no_such(run, "runs", {**runs, **(adapters or {})})
    elif runs and run in runs and int(step) not in runs[run].checkpoint_steps:
        steps = ", ".join(map(str, runs[run].checkpoint_steps))
        problems[path] = f"run {run} has no checkpoint {step} (checkpoints: {steps})"
    elif adapters and run in adapters and int(step) != adapters[run].step:
        problems[path] = f"adapter {run} is of step {adapters[run].step}, not {step}"


def _sees_another_world(benchmark: BenchmarkSection, image_set: ImageSetSection, captions: Any) -> bool:
    if benchmark.backend not in benchmark_named(benchmark.scorer).backend_names:
        return False  # told already
    backend = backend_of(benchmark)
    return backend.embedded_only and not _of_embedded_world(image_set, captions, backend.world)


def _of_embedded_world(image_set: ImageSetSection, captions: Any, world: str) -> bool:
    """True also where the captions section is at fault, which is reported already."""
    if image_set.heldout is not None and image_set.prompts is None:
        return captions is None or (captions.shapes is not None and captions.shapes.world == world)
    return image_set.prompts is None and (image_set.shapes is None or image_set.shapes.world == world)


def _told(world: str) -> str:
    return "the embedded world" if world == "shapes" else f"the {world}"


def _of_world(world: str) -> str:
    """What else such prompts must say."""
    return "" if world == "shapes" else f" with `world: {world}`"


def exactly_one(section: Section, path: str, keys: tuple[str, ...], problems: Problems) -> None:
    """Add a problem unless exactly one of these keys is given."""
    given = [key for key in keys if getattr(section, key) is not None]
    if any(reported.startswith(f"{path}.{key}") for reported in problems for key in keys):
        return  # one of them is faulty and was dropped
    if len(given) != 1:
        problems[path] = f"give exactly one of {', '.join(keys)} (found {', '.join(given) or 'none'})"


def no_such(name: str, section: str, known: dict) -> str:
    """A name that is not an entry of a section."""
    return f"{name}: no such entry of {section} (known: {', '.join(known) or 'none'}){maybe(name, known)}"
