"""What one iteration takes by phase, for MFU: FLOPs of the code that runs, traced without values (costs.py)."""

from __future__ import annotations

from pathlib import Path

from promptecho.config import ExperimentConfig, run_rewards, run_training
from promptecho.config.training import TrainingConfig
from promptecho.phases import Phase
from promptecho.plan.costs import T2iCosts
from promptecho.plan.gpus import Gpu
from promptecho.plan.memory import reward_batch
from promptecho.plan.plan import Planner
from promptecho.plan.settings import Settings
from promptecho.plan.trace import Cost
from promptecho.train.deal import drawn_timesteps, groups_per_pass
from promptecho.train.speed import Effort, Work

SAMPLED_CAPTIONS = 256  # whose mean length counts as every prompt's


def work_of(
    config: ExperimentConfig, run: str, prompt_tokens: int, gpu: Gpu | None = None, root: Path | None = None
) -> Work:
    """What an iteration of `run` takes, each prompt having `prompt_tokens` tokens.

    Encoding counts where it happens in every iteration, without a prompt cache. Rewards count where the VLM's passes
    are all there is to them: neither written replies, whose lengths differ, nor a reward without a VLM.

    Args:
        gpu: whose rates count; None: no datasheet is known.
        root: as of `Planner`.

    Raises:
        ModelError: as of `Planner`.
    """
    cache, training = config.models_prompt_cache is not None, run_training(config, run)
    planner = Planner(Settings(1.0, 1.0, 1.0, 0.0, prompt_tokens, 1, config.captions.query, cache), root)
    parts, weights = [], training.size_weights(config.models.t2i)
    for size, weight in zip(training.image_sizes(config.models.t2i), weights, strict=True):
        sized = config.model_copy(update={"runs": {**config.runs, run: training.of_size(*size)}})
        parts.append((weight / sum(weights), *_work(planner, sized, run, cache)))
    useful, again = (
        {phase: _effort(_mean([(weight, costs[phase]) for weight, costs in which]), gpu) for phase in which[0][1]}
        for which in ([(weight, first) for weight, first, _ in parts], [(weight, last) for weight, _, last in parts])
    )
    return Work(useful, {**useful, **again}, None if gpu is None else gpu.name)


def _mean(parts: list[tuple[float, Cost]]) -> Cost:
    return parts[0][1] if len(parts) == 1 else sum((cost.times(weight) for weight, cost in parts), Cost())


def _work(
    planner: Planner, config: ExperimentConfig, run: str, cache: bool
) -> tuple[dict[Phase, Cost], dict[Phase, Cost]]:
    """What images of one size take by phase, and, where something is computed again, with that."""
    training, rewards = run_training(config, run), run_rewards(config, run)
    images, updated = training.sampled_images, training.update_images
    keeps_all = without_checkpointing(training)
    t2i = planner.t2i(config, keeps_all)

    n, sampling = min(training.sampling.batch_size, images), training.sampling
    step = t2i.sample_step(n, sampling.guidance_scale).times(sampling.num_inference_steps * images / n)
    encode = Cost() if cache else t2i.encode().times(training.prompts_per_iteration)
    micro = min(training.micro_batch_size, updated)
    one_set = t2i.velocity(micro, training).times(drawn_timesteps(training) * updated / micro)
    costs = {
        Phase.SAMPLE: encode + step + t2i.decode(n).times(images / n),
        Phase.PRECOMPUTE: one_set,
        Phase.UPDATE: _update(t2i, training),
    }
    if all(entry.reward.needs_vlm and not entry.reward.writes for entry in rewards):
        sizes = [reward_batch(entry, images) for entry in rewards]
        found = [
            vlm.reward(size, entry, config.captions.query).times(images / size)
            for vlm, size, entry in zip(planner.vlms(config, run), sizes, rewards, strict=True) if vlm is not None
        ]  # fmt: skip
        costs[Phase.REWARD] = sum(found, Cost())
    if keeps_all == training:
        return costs, {}
    return costs, {Phase.UPDATE: _update(planner.t2i(config, training), training)}


def without_checkpointing(training: TrainingConfig) -> TrainingConfig:
    """The same training that keeps all its activations."""
    return training.model_copy(update={"activation_checkpointing": "off"})


def prompt_tokens(config: ExperimentConfig, captions: Path) -> int:
    """Mean tokens of the first training captions, as the plan counts a prompt's: without the template's.

    Raises:
        DataError, ModelError: captions or tokenizer cannot be read.
    """
    from promptecho.captions.readers import t2i_reader
    from promptecho.captions.store import load_training_captions

    texts = [caption.text for caption in load_training_captions(captions)[:SAMPLED_CAPTIONS]]
    ids = t2i_reader(config.models.t2i).tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    return max(1, round(sum(map(len, ids)) / len(ids)))


def _update(t2i: T2iCosts, training: TrainingConfig) -> Cost:
    micro = min(training.micro_batch_size, training.update_images)
    units = training.passes * training.update_images * groups_per_pass(training)
    return t2i.loss(micro, training).times(units / micro)


def _effort(cost: Cost, gpu: Gpu | None) -> Effort:
    ideal = None if gpu is None else sum(flops / gpu.rate(kind) for kind, flops in cost.flops.items())
    return Effort(cost.total, ideal)
