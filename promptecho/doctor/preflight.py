"""What a preflight looks at: an experiment, the site, the profile, and the place where Snakemake will start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptecho.config import (
    ExperimentConfig,
    SiteConfig,
    evaluation_steps,
    load_experiment,
    load_site,
    read_yaml,
    resolve_experiment,
)
from promptecho.config.evaluation import BenchmarkSection
from promptecho.config.job_sizes import Stage
from promptecho.doctor.profile import WorkflowProfile, read_profile
from promptecho.models.inventory import SITE
from promptecho.shipped import PACKAGE

# How a finding says which jobs it would have struck.
JOBS: dict[Stage, str] = {
    "caption": "captions, the first jobs (rule caption_shard)",
    "train": "training (rule train)",
    "generate": "images (rule generate_shard)",
    "judge": "judging images (rule judge)",
    "score": "scores (rule score)",
    "guard": "guards' scores (rule guard)",
}


@dataclass(frozen=True)
class Preflight:
    """An experiment as Snakemake would run it from the current folder.

    `source` is the file of the experiment. `stages`: those whose jobs are to run; what only others need is not looked
    at. `benchmarks`: likewise. Without `network` nobody is asked but this machine. `envs`: the folder of environments
    that `promptecho envs build` has made, where the workflow uses them.
    """

    config: ExperimentConfig
    source: Path
    site: SiteConfig | None
    profile: WorkflowProfile | None
    stages: frozenset[Stage]
    benchmarks: dict[str, BenchmarkSection]
    network: bool = True
    envs: Path | None = None

    def names(self, stage: Stage) -> list[str]:
        """Runs of training, benchmarks of judge and score, columns of guards, and "" for other stages; none of a stage
        that is not to run."""
        if stage not in self.stages or (stage == "caption" and not self.config.captions.writes):
            return []  # prompts that are brought are imported: nothing is captioned
        if stage == "train":
            return list(self.config.runs)
        if stage == "judge":
            return [name for name, section in self.benchmarks.items() if section.judge is not None]
        if stage == "guard":
            return [guard.title for guard in self.config.guards]
        return list(self.benchmarks) if stage == "score" else [""]

    @property
    def results(self) -> Path:
        return Path("results") / self.config.experiment

    @property
    def environments(self) -> Path:
        """The folder of the stages' environments, in the checkout."""
        return PACKAGE.parent / "envs"


def make_preflight(config: Path, profile: Path | None) -> Preflight:
    """The preflight of an experiment file, or of a resolved configuration.

    Raises:
        ConfigError: the experiment, config/config.yaml or the profile is at fault.
    """
    site = load_site(read_yaml(SITE)) if SITE.is_file() else None
    ours = site is not None and config.resolve().parent == Path(site.experiments_dir).resolve()
    loaded = resolve_experiment(site, config.stem, {}) if site is not None and ours else load_experiment(config)
    return preflight_of(loaded, config, site, None if profile is None else read_profile(profile))


def preflight_of(
    config: ExperimentConfig, source: Path, site: SiteConfig | None, profile: WorkflowProfile | None
) -> Preflight:
    """The preflight of all stages that an experiment has."""
    scored = {entry.benchmark for entry in config.evaluate}
    scored = {name for name in scored if any(evaluation_steps(config, name, run) for run in all_runs(config))}
    benchmarks = {name: section for name, section in config.benchmarks.items() if name in scored}
    stages: set[Stage] = set()
    if config.runs:
        stages |= {"caption", "train"}
    if any(set_.heldout is not None for set_ in config.image_sets.values()):
        stages.add("caption")
    if benchmarks:
        stages |= {"generate", "score"}
        stages |= {"guard"} if config.guards else set()
    if any(section.judge is not None for section in benchmarks.values()):
        stages.add("judge")
    envs = Path(site.envs) if site is not None and site.envs is not None else None
    return Preflight(config, source, site, profile, frozenset(stages), benchmarks, envs=envs)


def all_runs(config: ExperimentConfig) -> list[str]:
    """Whatever has images: the base model, runs and published adapters."""
    return ["base", *config.runs, *config.adapters]
