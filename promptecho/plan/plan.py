"""The plan of an experiment on given GPUs: memory, time, and what to change where it does not fit. Read this first.

`costs.py` traces the code of each phase without values; `memory.py` and `phases.py` put its figures together for a
layout; `remedies.py` looks for changes with which it fits; `result.py` is what comes out, and `show.py` prints it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from promptecho.config import ExperimentConfig, reward_vlm, run_rewards, run_training, run_vlms
from promptecho.config.job_sizes import asks_elsewhere
from promptecho.config.models import ImageSetSection
from promptecho.config.rewards import VlmSection
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError, DataError
from promptecho.phases import Phase
from promptecho.plan.architectures import locate_or_describe
from promptecho.plan.captioning import Captioning, image_size, plan_captions
from promptecho.plan.checkpointing import chosen, mode_costs
from promptecho.plan.costs import Known, T2iCosts, VlmCosts
from promptecho.plan.evaluation import evaluate
from promptecho.plan.gathering import decided, refusal, with_placement
from promptecho.plan.gpus import Gpu
from promptecho.plan.memory import GpuMemory, generation_memory, host_bytes, server_memory, trainer_memory, update_bytes
from promptecho.plan.phases import Clock, averaged, iteration_phases, rollout_phases
from promptecho.plan.remedies import remedy
from promptecho.plan.result import NO_VLM, Cluster, ModeCost, Plan, RunPlan, UsualSize
from promptecho.plan.settings import Settings
from promptecho.train.placement.layout import RankLayout, make_layout


class Planner:
    """Plans runs of configurations that differ in little; what was traced for one serves the others.

    Args:
        root: folder of fetched models; None: as the site's configuration has it.
    """

    def __init__(self, settings: Settings, root: Path | None = None) -> None:
        self.settings, self.root, self._known = settings, root, Known()

    def plan(self, config: ExperimentConfig, cluster: Cluster, runs: list[str], images: int | None = None) -> Plan:
        """The plan of `runs`, and of captioning so many `images` (None: those that are here).

        Raises:
            ConfigError, DataError: unknown run, or a layout that can't work.
            ModelError: a model is neither here nor described in the project.
        """
        _check_layouts(config, cluster, runs)
        plans, problems = [], []
        for name in runs:
            asked = self.with_checkpointing(config, cluster, name)
            config = self.with_gathering(asked, cluster, name)
            plans.append(self.run(config, cluster, name))
            if refused := self.refusal(config, cluster, name):
                problems.append(refused)
                asked = with_placement(config, name, gather="layer")  # what follows is about the other phases
            problem = self.problem(plans[-1].memory, cluster.gpu)
            if problem is not None:
                fits = partial(self._run_fits, run=name)
                problems.append(f"run {name}: {problem}; {remedy(asked, cluster, name, plans[-1], fits)}")
        clock, sets = Clock(cluster.gpu, self.settings, cluster.nodes), config.image_sets
        models = {name: self.generator(config, section, runs[0] if runs else None) for name, section in sets.items()}
        generation = {
            name: generation_memory(models[name], section.batch_size, section.guidance_scale, self.settings)
            for name, section in sets.items()
        }
        for name, memory in generation.items():
            if (problem := self.problem([memory], cluster.gpu)) is not None:
                decoding = "set models.t2i.vae_slicing: true or lower" if memory.peak_phase == Phase.DECODE else "lower"
                problems.append(
                    f"image_sets.{name}: {problem}; {decoding} image_sets.{name}.batch_size, or take GPUs with more "
                    "memory"
                )
        captions = self.captions(config, clock, images)
        if captions is not None and (problem := self.problem([captions.memory], cluster.gpu)) is not None:
            problems.append(
                f"captions: {problem}; lower captions.batch_size (or captions.max_pixels, captions.max_new_tokens), or "
                "take GPUs with more memory"
            )
        evaluations = [evaluate(config, name, models[name], clock) for name in sets]
        return Plan(config.experiment, cluster, self.settings, plans, generation, evaluations, captions, problems,
                    _left_out(config, runs))  # fmt: skip

    def captions(self, config: ExperimentConfig, clock: Clock, images: int | None) -> Captioning | None:
        """The plan of captioning; None where no VLM writes the prompts, or a server elsewhere does."""
        if not config.captions.writes or asks_elsewhere(config):
            return None
        section, size = config.models.vlm, image_size(config)
        costs = self._known.get(
            ("vlm", section.model_dump_json(), size[1], size[0], 1),
            lambda: VlmCosts(
                locate_or_describe(config, section, "models.vlm", self.root), section, size=size,
                prompt_tokens=self.settings.prompt_tokens,
            ),
        )  # fmt: skip
        return plan_captions(config, costs, clock, images)

    def run(self, config: ExperimentConfig, cluster: Cluster, run: str) -> RunPlan:
        """The plan of one run."""
        config = self.with_gathering(self.with_checkpointing(config, cluster, run), cluster, run)
        training, rewards = run_training(config, run), run_rewards(config, run)
        layout = make_layout(training, 0, cluster.gpus, cluster.per_node)
        paths = dict.fromkeys(section.path for section in run_vlms(config, run).values())
        clock, vlms = Clock(cluster.gpu, self.settings, cluster.nodes), self.vlms(config, run)
        found, sizes, usual = [], training.image_sizes(config.models.t2i), _usual_size(config)
        heldout, weights = 0.0, training.size_weights(config.models.t2i)
        for size, weight in zip(sizes, weights, strict=True):
            sized = _with_training(config, run, training.of_size(*size))
            own = self.t2i(sized, sized.runs[run]), self.vlms(sized, run)
            found.append((weight, iteration_phases(*own, rewards, training, layout, clock)))
            if (watched := training.heldout).prompts:
                counts = watched.prompts, watched.images_per_prompt
                seconds = sum(p.seconds for p in rollout_phases(*own, rewards, training, layout, clock, *counts))
                heldout += weight / sum(weights) * seconds / watched.every
        return RunPlan(
            run, training.iterations, training.reward_placement.mode, _sharing(training, layout), training.zero_stage,
            {"text-to-image": config.models.t2i.path, "reward VLM": " and ".join(paths) or NO_VLM},
            self.memory(config, cluster, run), host_bytes(vlms, training), averaged(found), heldout, cluster.gpus,
            training.activation_checkpointing, self._modes(config, cluster, run), training.reward_placement.gather,
            sizes, None if sizes == [usual] else self._at_usual_size(config, cluster, run),
        )  # fmt: skip

    def _at_usual_size(self, config: ExperimentConfig, cluster: Cluster, run: str) -> UsualSize:
        """What a run would take with images of the size of models.t2i."""
        usual = _usual_size(config)
        plan = self.run(_with_training(config, run, run_training(config, run).of_size(*usual)), cluster, run)
        return UsualSize(usual, plan.seconds, max(memory.peak for memory in plan.memory))

    def memory(self, config: ExperimentConfig, cluster: Cluster, run: str) -> list[GpuMemory]:
        """That of each kind of GPU of a run."""
        training, rewards = run_training(config, run), run_rewards(config, run)
        layout = make_layout(training, 0, cluster.gpus, cluster.per_node)
        t2i, vlms = self.t2i(config, training), self.vlms(config, run)
        found = [trainer_memory(t2i, vlms, rewards, training, layout, self.settings)]
        if layout.servers_per_node:
            found.append(server_memory(vlms, rewards, training, layout, self.settings))
        return found

    def with_checkpointing(self, config: ExperimentConfig, cluster: Cluster, run: str) -> ExperimentConfig:
        """With a mode in place of `activation_checkpointing: auto` of a run."""
        return chosen(config, run, partial(self.update_bytes, cluster=cluster, run=run), self.limit(cluster.gpu))

    def with_gathering(self, config: ExperimentConfig, cluster: Cluster, run: str) -> ExperimentConfig:
        """With a way in place of `reward_placement.gather: auto` of a run; still `auto` where it is to be refused."""
        return decided(config, run, cluster.gpus, partial(self._lacks, cluster=cluster, run=run))

    def refusal(self, config: ExperimentConfig, cluster: Cluster, run: str) -> str:
        """Why a run can't be whose `reward_placement.gather` is still `auto`; else ""."""
        training = run_training(config, run)
        entries = zip(run_rewards(config, run), self.vlms(config, run), strict=True)
        writers = [vlm.text_bytes for entry, vlm in entries if vlm is not None and entry.reward.writes]
        if training.reward_placement.gather != "auto" or not writers:
            return ""
        sharing = _sharing(training, make_layout(training, 0, cluster.gpus, cluster.per_node))
        offloaded = training.reward_placement.mode == "offloaded"  # this GPU's own share comes from the host, too
        token_gb = max(writers) * (1 if offloaded else (sharing - 1) / sharing) / 1e9
        return refusal(config, run, cluster.gpus, partial(self._lacks, cluster=cluster, run=run), token_gb)

    def _lacks(self, config: ExperimentConfig, *, cluster: Cluster, run: str) -> float | None:
        """GB that a GPU lacks in the reward phase, negative where it has more; None where the layout can't work."""
        try:
            memory = self.memory(config, cluster, run)
        except (ConfigError, DataError):
            return None
        needed = max(one.bytes_in(Phase.REWARD) for one in memory if Phase.REWARD in one.phases)
        return (needed - self.limit(cluster.gpu)) / 1e9

    def _modes(self, config: ExperimentConfig, cluster: Cluster, run: str) -> list[ModeCost]:
        def flops(changed: ExperimentConfig) -> int:
            training = run_training(changed, run)
            return self.t2i(changed, training).loss(training.micro_batch_size, training).total

        n_bytes = partial(self.update_bytes, cluster=cluster, run=run)
        return mode_costs(config, run, n_bytes, flops, self.limit(cluster.gpu))

    def update_bytes(self, config: ExperimentConfig, cluster: Cluster, run: str) -> int:
        """What a GPU that trains has in the update, without a look at the other phases."""
        training = run_training(config, run)
        layout = make_layout(training, 0, cluster.gpus, cluster.per_node)
        t2i, vlms = self.t2i(config, training), self.vlms(config, run)
        return update_bytes(t2i, vlms, training, layout, self.settings)

    def limit(self, gpu: Gpu) -> float:
        """Bytes of a GPU that a plan fills at most."""
        return 1e9 * (gpu.memory_gb - self.settings.reserve_gb)

    def problem(self, memory: list[GpuMemory], gpu: Gpu) -> str | None:
        """What does not fit; None where all does."""
        limit = gpu.memory_gb - self.settings.reserve_gb
        worst = max(memory, key=lambda one: one.peak)
        if worst.peak <= self.limit(gpu):
            return None
        phase = worst.peak_phase
        parts = sorted((worst.held | worst.phases[phase]).items(), key=lambda item: -item[1])[:3]
        largest = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in parts)
        where = {"trainer": "each GPU that trains", "reward server": "each GPU that serves rewards"}
        return (
            f"{worst.peak / 1e9:.1f} GB in {phase} on {where.get(worst.who, 'the GPU')} ({largest}, ...), of "
            f"{limit:g} GB that a {gpu.name} leaves"
        )

    def t2i(self, config: ExperimentConfig, training: TrainingConfig) -> T2iCosts:
        section, fold = config.models.t2i, config.compute.fold_adapter
        section = section.of_size(*training.size(section))
        asked = training.activation_checkpointing
        mode = "off" if asked == "auto" else asked  # for what trains nothing; for the rest one is chosen
        key = ("t2i", section.model_dump_json(), training.finetuning, training.lora.model_dump_json(), mode, fold)
        return self._known.get(
            key,
            lambda: T2iCosts(
                locate_or_describe(config, section, "models.t2i", self.root), section, training,
                checkpointing=mode, fold=fold, prompt_tokens=self.settings.prompt_tokens,
            ),
        )  # fmt: skip

    def generator(self, config: ExperimentConfig, section: ImageSetSection, run: str | None) -> T2iCosts:
        """The model that makes an image set, at the set's own image size where it has one; with an adapter as that of
        `run`, or of `training` where nothing is trained."""
        training = config.training if run is None else run_training(config, run)
        return self.t2i(config, training.of_size(*section.size(config.models.t2i)))

    def vlms(self, config: ExperimentConfig, run: str) -> list[VlmCosts | None]:
        """The VLM of each of a run's rewards, the same object where it is the same; None where one needs none."""
        sections = [reward_vlm(config, entry, run) for entry in run_rewards(config, run)]
        return [None if section is None else self._vlm(config, section, run) for section in sections]

    def _vlm(self, config: ExperimentConfig, section: VlmSection, run: str) -> VlmCosts:
        height, width = run_training(config, run).size(config.models.t2i)
        key = next(key for key, one in run_vlms(config, run).items() if one == section)
        frames = config.models.t2i.frames
        return self._known.get(
            ("vlm", section.model_dump_json(), height, width, frames),
            lambda: VlmCosts(
                locate_or_describe(config, section, key, self.root), section, size=(width, height),
                prompt_tokens=self.settings.prompt_tokens, frames=frames,
            ),
        )  # fmt: skip

    def _run_fits(self, config: ExperimentConfig, cluster: Cluster, *, run: str) -> float | None:
        """Peak memory in GB if the run then fits, else None; also where such a layout can't work or is refused."""
        config = self.with_gathering(config, cluster, run)
        if run_training(config, run).reward_placement.gather == "auto":
            return None
        try:
            memory = self.memory(config, cluster, run)
        except (ConfigError, DataError):
            return None
        if self.problem(memory, cluster.gpu) is not None:
            return None
        return max(one.peak for one in memory) / 1e9


def _left_out(config: ExperimentConfig, runs: list[str]) -> list[str]:
    """What the experiment asks for in these runs and the plan counts nowhere: rewards that need no VLM, as their models
    are not traced, and guards."""
    entries = {entry.name: entry.reward for run in runs for entry in run_rewards(config, run)}
    found = [
        f"memory of {name}" if reward.seconds_per_image else f"memory and time of {name}"
        for name, reward in entries.items()
        if not reward.needs_vlm
    ]
    return [*found, f"guards ({', '.join(guard.title for guard in config.guards)})"] if config.guards else found


def _usual_size(config: ExperimentConfig) -> tuple[int, int]:
    return config.models.t2i.height, config.models.t2i.width


def _with_training(config: ExperimentConfig, run: str, training: TrainingConfig) -> ExperimentConfig:
    return config.model_copy(update={"runs": {**config.runs, run: training}})


def _sharing(training: TrainingConfig, layout: RankLayout) -> int:
    mode = training.reward_placement.mode
    if mode == "replicated":
        return 1
    return layout.servers_per_node if mode == "dedicated" else layout.trainers_per_node


def _check_layouts(config: ExperimentConfig, cluster: Cluster, runs: list[str]) -> None:
    """Raises ConfigError for layouts that can't work, of all runs at once."""
    problems: dict[str, list[str]] = {}
    for name in runs:
        try:
            make_layout(run_training(config, name), 0, cluster.gpus, cluster.per_node)
        except (ConfigError, DataError) as error:
            problems.setdefault(str(error), []).append(name)
    if problems:
        raise ConfigError("\n".join(f"runs.{', runs.'.join(names)}: {text}" for text, names in problems.items()))
