"""The prompt files of image sets: whether they are here, or can be had when the workflow fetches them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptecho.config.benchmarks import official_sources
from promptecho.config.prompt_sources import RAW, Source
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.models import hub_access

FETCHED = Path("data/benchmarks")  # rule official_prompts


def prompt_files(preflight: Preflight) -> Iterator[Finding]:
    """Each file that an image set names; those that are missing are known by their official sets."""
    if "generate" not in preflight.stages:
        return
    absent: dict[str, list[str]] = {}
    for name in {section.image_set: None for section in preflight.benchmarks.values()}:
        given = preflight.config.image_sets[name].prompts
        if given is None:
            continue
        if Path(given).is_file():
            yield fine(f"image_sets.{name}.prompts: {given}")
            continue
        source = next((one for one in official_sources() if _is_of(one, Path(given))), None)
        if source is None:
            fix = "bring the file, or correct the path"
            yield problem(f"image_sets.{name}.prompts: {given}: no such file", JOBS["generate"], fix)
        else:
            absent.setdefault(source.name, []).append(name)
    for source in official_sources():
        if source.name in absent:
            keys = ", ".join(f"image_sets.{name}.prompts" for name in absent[source.name])
            yield _fetchable(preflight, source, f"{keys}: the official prompts of {source.title} are not here")


def _is_of(source: Source, path: Path) -> bool:
    return path.parent == FETCHED / source.name and path.name in source.prompts


def _fetchable(preflight: Preflight, source: Source, told: str) -> Finding:
    when = f"the first minutes (rule official_prompts), and {JOBS['generate']} of this set"
    given = preflight.site.benchmarks.mirror if preflight.site is not None else None
    folder = None if given is None else Path(given) / source.mirror
    if folder is not None and all((folder / file.name).is_file() for file in source.files):
        return fine(f"{told}; the workflow takes them from {folder}")
    if not preflight.network:
        return unchecked(told, when, "look where the network may be asked")
    if (reason := hub_access.unreachable(RAW)) is None:
        return fine(f"{told}; the workflow fetches them, and {RAW} answers")
    where = "there is no mirror" if folder is None else f"{folder} does not hold them all"
    return problem(
        f"{told}; {where} (benchmarks.mirror of config/config.yaml), and {RAW} does not answer ({reason})", when,
        f"where there is internet: promptecho benchmarks fetch {source.name} --out {FETCHED}",
    )  # fmt: skip
