"""What is impossible between keys of `training`."""

from __future__ import annotations

from promptecho.config.rewards import reward_problems
from promptecho.config.trackers import tracker_problems
from promptecho.config.training import TrainingConfig

GRIDS = ("sampler_grid", "stratified_grid")  # distributions of timesteps that are the sampler's


def training_problems(training: TrainingConfig) -> list[tuple[str, str]]:
    """Impossible combinations: (key that is at fault, what is wrong and how to fix it)."""
    problems = []
    if training.images_per_prompt < 2:
        problems.append(("images_per_prompt", "must be at least 2: an advantage compares images of one prompt"))
    kept = training.update_images_per_prompt
    if kept is not None and not 2 <= kept <= training.images_per_prompt:
        problems.append(
            (
                "update_images_per_prompt",
                f"{kept} must lie between 2 and images_per_prompt {training.images_per_prompt}; null takes all",
            )
        )
    per_prompt = "images_per_prompt" if kept is None else "update_images_per_prompt"
    if training.update_images % training.batch_size:
        of = "" if kept is None else "update "
        problems.append(
            (
                "batch_size",
                f"{training.batch_size} does not divide the {training.update_images} {of}images of an iteration "
                f"(prompts_per_iteration {training.prompts_per_iteration} x {per_prompt} {training.update_group})",
            )
        )
    if training.timesteps.shared_by == "prompt" and training.batch_size % training.update_group:
        problems.append(
            (
                "batch_size",
                f"{training.batch_size} is not a multiple of {per_prompt} {training.update_group}, which "
                "timesteps.shared_by: prompt needs (an optimizer step takes whole prompts)",
            )
        )
    if training.finetuning == "full" and training.init_adapter is not None:
        problems.append(("init_adapter", "is for finetuning: lora; a run with finetuning: full begins with the model"))
    problems += _size_problems(training)
    if training.activation_checkpointing == "selective" and training.zero_stage == 3:
        problems.append(
            ("activation_checkpointing", "selective does not go with zero_stage 3, which gathers weights: take full")
        )
    problems += _schedule_problems(training)
    if training.timesteps.distribution in GRIDS:
        problems += _grid_problems(training)
    problems += _algorithm_problems(training)
    if training.heldout.patience is not None and not training.heldout.prompts:
        problems.append(
            ("heldout.patience", "needs heldout.prompts above 0: without them there is no score to stop on")
        )
    problems += [(f"rewards.{key}", message) for key, message in reward_problems(training.rewards or [])]
    problems += [(f"trackers.{key}", message) for key, message in tracker_problems(training.trackers)]
    if training.checkpoints is not None and training.checkpoint_every is not None:
        problems.append(("checkpoint_every", "give either checkpoints or checkpoint_every; set the other to null"))
    if training.checkpoints is not None:
        steps = training.checkpoints
        if not steps:
            problems.append(("checkpoints", "is empty; name at least the last iteration, or use null"))
        elif any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            problems.append(("checkpoints", f"{steps} must increase from entry to entry"))
        elif steps[-1] > training.iterations:
            problems.append(
                (
                    "checkpoints",
                    f"{steps[-1]} is a checkpoint beyond the run, which ends at iterations {training.iterations}",
                )
            )
        elif steps[-1] != training.iterations:
            problems.append(
                ("checkpoints", f"the last one is {steps[-1]}, but must equal iterations {training.iterations}")
            )
    elif training.checkpoint_every is not None and training.checkpoint_every > training.iterations:
        problems.append(
            (
                "checkpoint_every",
                f"{training.checkpoint_every} lies beyond the run, which ends at iterations {training.iterations}",
            )
        )
    return problems


def _schedule_problems(training: TrainingConfig) -> list[tuple[str, str]]:
    """A learning rate that has no time to fall, or that is 0 while iterations are left."""
    until = training.decay_iterations
    if until is None:
        return []
    problems = []
    if training.warmup_steps >= until * training.steps_per_iteration:
        problems.append(
            (
                "warmup_steps",
                f"{training.warmup_steps} leaves the learning rate no optimizer step to fall in: lr_schedule "
                f"{training.lr_schedule} ends after {until} iterations of {training.steps_per_iteration} steps",
            )
        )
    if until < training.iterations and not training.lr_floor:
        problems.append(
            (
                "lr_floor",
                f"with 0 nothing is learned after iteration {until} (lr_decay_iterations), but the run has "
                f"{training.iterations} iterations; take a floor above 0, such as 0.1, or fewer iterations",
            )
        )
    return problems


def _size_problems(training: TrainingConfig) -> list[tuple[str, str]]:
    """What does not go with several sizes of images."""
    if not training.has_several_sizes:
        if training.size_by == "draw":
            return []
        told = f"{training.size_by} chooses among several sizes: give sizes or buckets, or set size_by: draw"
        return [("size_by", told)]
    found, key = [], "sizes" if training.buckets is None else "buckets"
    if given := [one for one in ("height", "width", "sizes") if one != key and getattr(training, one) is not None]:
        found.append((key, f"give either {key} or {' and '.join(given)}; set the other to null"))
    if training.zero_stage == 3:
        found.append((key, "does not go with zero_stage 3, where all processes make each pass together: take one size"))
    if training.algorithm == "grpo":
        found.append((key, "does not go with algorithm: grpo, which keeps the sampler's way: take one size"))
    pixels = [(one.height, one.width) for one in training.sizes or []]
    if twice := [one for one in dict.fromkeys(pixels) if pixels.count(one) > 1]:
        found.append(("sizes", f"{twice[0][0]} x {twice[0][1]} is there twice; add their weights"))
    if training.size_by == "image" and any(one.weight != 1 for one in training.sizes or []):
        found.append(("size_by", "image leaves nothing to weights: take weight out of sizes, or set size_by: draw"))
    return found


def _grid_problems(training: TrainingConfig) -> list[tuple[str, str]]:
    """Grids that leave fewer of the sampler's timesteps than are drawn."""
    timesteps, steps = training.timesteps, training.sampling.num_inference_steps
    left = max(int(steps * timesteps.grid_share) - timesteps.grid_first, 0)
    if timesteps.per_sample <= left:
        return []
    cut = timesteps.grid_first or timesteps.grid_share < 1
    after = f", of which timesteps.grid_share and grid_first leave {left}" if cut else ""
    message = f"{timesteps.per_sample} exceeds the {steps} steps of sampling{after}, which"
    return [("timesteps.per_sample", f"{message} {timesteps.distribution} draws from")]


def _algorithm_problems(training: TrainingConfig) -> list[tuple[str, str]]:
    """What an algorithm needs of the other keys."""
    if training.algorithm == "nft" and training.advantage.clip is None:
        return [("advantage.clip", "must be a number with algorithm nft: at it an image counts as wholly good or bad")]
    if training.algorithm != "grpo":
        return []
    problems = []
    if (drawn := training.timesteps.distribution) not in GRIDS:
        problems.append(
            (
                "timesteps.distribution",
                f"{drawn} does not go with algorithm grpo, which trains on steps of the sampler: take "
                f"{' or '.join(GRIDS)}",
            )
        )
    if training.sampling.num_inference_steps < 2:
        problems.append(("sampling.num_inference_steps", "must be at least 2 with algorithm grpo"))
    return problems
