"""How often judges will be asked, and what that costs, before there is any image."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from promptecho.benchmarks.registry import configured_scorer, load_layout
from promptecho.benchmarks.scoring import Estimating, ImageFolder
from promptecho.config import ExperimentConfig, evaluation_steps
from promptecho.config.benchmarks import load_part, mistakes_told
from promptecho.config.evaluation import BenchmarkSection
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.scorers import is_pairwise
from promptecho.doctor.blank_images import write_blank_images
from promptecho.doctor.preflight import Preflight, all_runs
from promptecho.errors import DataError, PromptEchoError, bug_line
from promptecho.judges.base import CallEstimate


@dataclass(frozen=True)
class JudgeCost:
    """Calls to the judge of a benchmark for all `checkpoints`; `usd` None: its settings name no prices. `unknown`: why
    nobody can tell."""

    benchmark: str
    judge: str
    checkpoints: int
    calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    max_calls: int | None = None
    unknown: str = ""


def judge_costs(preflight: Preflight) -> list[JudgeCost]:
    """Of every benchmark whose judge is behind an endpoint, if nothing is answered yet."""
    found = []
    for name, section in preflight.benchmarks.items():
        settings = preflight.config.judges.models.get(section.judge or "")
        if settings is None or judge_kind(settings.kind).in_process:
            continue
        assert section.judge is not None, "it has settings"
        config = preflight.config
        checkpoints = sum(len(evaluation_steps(config, name, run)) for run in all_runs(config))
        try:
            one = calls_of_one(preflight, section)
        except (PromptEchoError, OSError) as error:
            found.append(JudgeCost(name, section.judge, checkpoints, unknown=str(error)))
            continue
        except Exception as error:  # as in `run_checks`
            found.append(JudgeCost(name, section.judge, checkpoints, unknown=bug_line(error)))
            continue
        usd = None if one.usd is None else checkpoints * one.usd
        found.append(
            JudgeCost(
                name, section.judge, checkpoints, checkpoints * one.calls, checkpoints * one.input_tokens,
                checkpoints * one.output_tokens, usd, settings.max_calls,
            )
        )  # fmt: skip
    return found


def calls_of_one(preflight: Preflight, section: BenchmarkSection) -> CallEstimate:
    """The calls about the images of one checkpoint, as the scorer itself estimates them for blank images.

    Raises:
        DataError: the prompts are not here, or the scorer estimates nothing.
    """
    config = preflight.config
    set_ = config.image_sets[section.image_set]
    with tempfile.TemporaryDirectory(prefix="promptecho-doctor-") as folder:
        place = Path(folder)
        prompts = prompts_of(config, section.image_set, place / "prompts.jsonl")
        folders = []
        for name in ("images", "baseline") if is_pairwise(section) else ("images",):
            layout = load_layout(set_.benchmark, prompts, place / name, set_.images_per_prompt, section.limit)
            write_blank_images(layout, set_.images_per_prompt, set_.size(config.models.t2i))
            folders.append(place / name)
        scorer = configured_scorer(section, config, place / "answers", "cpu")
        if not isinstance(scorer, Estimating):
            raise DataError(f"{section.scorer}: its scorer has no `estimate`; see its documentation")
        baseline = folders[1] if len(folders) > 1 else None
        images = ImageFolder(folders[0], prompts, set_.images_per_prompt, baseline, section.limit)
        with mistakes_told(section.scorer, "scorer"):
            return scorer.estimate(images)


def prompts_of(config: ExperimentConfig, image_set: str, written: Path) -> Path:
    """The prompt file of an image set; prompts over an embedded world are written to `written`."""
    section = config.image_sets[image_set]
    ours = Path("results") / config.experiment / "prompts" / image_set / "metadata.jsonl"
    if section.prompts is not None:
        if not (path := Path(section.prompts)).is_file():
            raise DataError(f"image_sets.{image_set}.prompts: {path} is not here yet; promptecho benchmarks fetch")
        return path
    if section.shapes is not None:
        load_part(section.benchmark, section.shapes.world)(section.shapes.per_tag, section.shapes.seed, written)
        return written
    if not ours.is_file():
        raise DataError(f"image_sets.{image_set}: its prompts are held-out captions, which are not there yet")
    return ours
