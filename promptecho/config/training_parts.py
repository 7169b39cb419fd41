"""The sections of `training`: adapters, sampling, timesteps, algorithms, advantages, averages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from promptecho.config.fields import (
    OF_FAMILY,
    SCHEDULE,
    Count,
    CountOrZero,
    Decay,
    Flag,
    NonNegative,
    Positive,
    Real,
    Schedule,
    Section,
    Text,
)

Weighting = Literal["ghuber", "uniform", "t", "t2", "huber"]


class LoraSection(Section):
    """The adapter that is trained."""

    rank: Count = Field(64, description="Rank of the LoRA matrices.")
    alpha: Positive = Field(128, description="LoRA alpha; the adapter's output is scaled by alpha / rank.")
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming",
        description="How matrix A begins (B begins at 0, so the adapter does nothing at first either way). kaiming: "
        "uniform on +-1/sqrt(fan_in), PEFT's default; gaussian: normal with standard deviation 1 / rank, as AWM, "
        "Flow-GRPO and Flow-Factory have it. At widths of 3,072 to 12,288 and rank 64 the gaussian A is 1.5 to 3 times "
        "larger, and a step of the same learning rate moves the model as much more.",
    )
    target_modules: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="Name endings of the linear layers that get an adapter; null: the family's own list (attention "
        "and feed-forward layers of all blocks; docs/families.md).",
    )
    layers: Literal["all", "attention"] = Field(
        "all",
        description="Which layers of the family's own list get an adapter, where `target_modules` is null. attention: "
        "those of attention alone, as in AWM's published settings.",
    )


class SamplingSection(Section):
    """How training images are sampled."""

    num_inference_steps: Count = Field(30, description="ODE steps per training image.")
    guidance_scale: NonNegative = Field(
        3.5, description=f"Guidance scale as the family's diffusers pipeline understands it. {OF_FAMILY}"
    )
    schedule: Schedule = Field("pipeline", description=SCHEDULE)
    batch_size: Count = Field(8, description="Images sampled together by one process.")
    policy: Literal["on_policy", "ema"] = Field(
        "on_policy",
        description="Weights that sample, from which the old log-probabilities are taken too. on_policy: the ones "
        "being trained. ema: their moving average (`kl_ema.decay`), which changes more slowly; ratios are then not 1 "
        "at the iteration's start (AWM's `off_policy`).",
    )


class TimestepsSection(Section):
    """Timesteps at which the matching loss is evaluated."""

    per_sample: Count = Field(4, description="Timesteps per image and optimizer step.")
    distribution: Literal["stratified_logit_normal", "uniform", "sampler_grid", "stratified_grid"] = Field(
        "stratified_logit_normal",
        description="With u_i uniform on the i-th of `per_sample` equal strata of (0, 1), stratified_logit_normal: "
        "t = sigmoid(mean + std * Phi^-1(u_i)), then shifted (AWM's code has it, but none of its six published "
        "configurations uses it); uniform: t uniform on (0, 1]; sampler_grid: the timesteps that the sampler visits, "
        "drawn without replacement; stratified_grid: the sampler's timesteps are cut into `per_sample` runs of "
        "neighbours, and one is drawn from each (AWM's published configurations).",
    )
    grid_first: CountOrZero = Field(
        0,
        description="For the two grids: number of the sampler's first timesteps that are left out. AWM: 1 for "
        "GenEval and "
        "OCR, 0 for PickScore.",
    )
    grid_share: Annotated[Positive, Field(le=1)] = Field(
        1.0,
        description="For the two grids: only the first floor(share * steps) of the sampler's timesteps are used. "
        "AWM: 0.9.",
    )
    shift: Positive = Field(
        3.0,
        description="Timestep shift s, t -> s t / (1 + (s - 1) t); 1 leaves t as drawn. "
        "Only for stratified_logit_normal. It is the same for images of all sizes, while the sampler's grows with an "
        "image's tokens in some families (Qwen-Image, FLUX.1 dev, FLUX.2 klein, where fewer steps raise it, too): "
        "set it for the size that is trained on, or take a grid, which follows (docs/training.md).",
    )
    mean: Real = Field(0.0, description="Mean of the logit-normal.")
    std: Positive = Field(1.0, description="Standard deviation of the logit-normal.")
    redraw: Literal["iteration", "pass"] = Field(
        "iteration",
        description="When timesteps and loss noise are drawn: once per iteration and shared by its passes, so that "
        "every pass without gradient runs once; or again for each pass, which multiplies those passes by `passes`.",
    )
    shared_by: Literal["none", "prompt"] = Field(
        "none",
        description="Which images meet the same timesteps and loss noise. none: each has its own (AWM too, but that "
        "the images of one forward pass there share their timesteps). prompt: the "
        "images of a prompt share theirs (common random numbers, ours), and optimizer steps take whole prompts, so "
        "`batch_size` must be a multiple of `images_per_prompt`. As a prompt's advantages sum to 0, what its images "
        "have in common cancels; the gradient's expectation is the same and its variance lower.",
    )


class NftSection(Section):
    """What `algorithm: nft` has of its own."""

    beta: Positive = Field(
        1.0,
        description="How far the policy's velocity v counts in the two that are matched, v+ = (1 - beta) v_old + "
        "beta v and v- = (1 + beta) v_old - beta v. Published: 1 (GenEval, PickScore, HPSv2), 0.1 (OCR).",
    )


class GrpoSection(Section):
    """What `algorithm: grpo` has of its own."""

    noise_level: Positive = Field(
        0.7,
        description="How much noise the sampler adds: sigma_t = noise_level sqrt(t / (1 - t)). Published: 0.7.",
    )


class AdvantageSection(Section):
    """From rewards to advantages; the group mean is always subtracted."""

    scale: Literal["none", "group_std", "global_std", "reward_std"] = Field(
        "none",
        description="none: A = r - mean(r of its prompt), PromptEcho's published choice; group_std: A / (std of its "
        "prompt's rewards + 1e-6), as in GRPO; global_std: A / (std of all centred rewards of the iteration + 1e-6); "
        "reward_std: A / (std of all rewards of the iteration, not centred, + 1e-4), AWM's `global_std`.",
    )
    clip: Positive | None = Field(5.0, description="Advantages are clipped to [-clip, clip]; null: not clipped.")
    factor: Positive = Field(
        1.0,
        description="Advantages are multiplied by this after they were clipped. AWM: 0.2, so that they lie in [-1, 1]. "
        "Adam's steps hardly depend on it, but the KL terms weigh as much more against smaller advantages.",
    )


class KlBaseSection(Section):
    """Velocity KL to the base model."""

    weight: NonNegative = Field(0.0, description="Weight of the KL to the base model; 0: off.")
    weighting: Literal["uniform", "elbo"] = Field(
        "uniform",
        description="KL = mean of w(t) |v - v_base|^2 over images, timesteps and dimensions. uniform: w = 1; elbo: "
        "w = 1 / (2 s^2), s = 0.7 sqrt(t / (1 - min(t, 0.99))), the noise level of an SDE sampler of that strength.",
    )


class KlEmaSection(Section):
    """Velocity KL to a moving average of the policy; acts as the trust region."""

    weight: NonNegative = Field(
        1.0,
        description="Weight of mean |v - v_ema|^2 in the loss; 0: off. It plays the trust region's part (AWM's code, "
        "weight 1).",
    )
    decay: Decay = Field(
        0.3,
        description="EMA <- decay * EMA + (1 - decay) * policy at the start of each iteration; 0: the policy at the "
        "start of the iteration. Per iteration, so that its velocities are computed once for all passes.",
    )
    ramp: Positive | None = Field(
        None,
        description="The decay rises to `decay` by so much per optimizer step: min(decay, ramp * steps done). AWM: "
        "0.001, with decay 0.3 and one step per iteration. null: `decay` from the start.",
    )

    def decay_at(self, steps: int) -> float:
        """The decay after so many optimizer steps."""
        return self.decay if self.ramp is None else min(self.decay, self.ramp * steps)


class HeldoutSection(Section):
    """Watching the reward on held-out captions with fixed noise, and stopping early on it."""

    prompts: CountOrZero = Field(
        0,
        description="Held-out captions to watch, from the end of the file (image sets take theirs from its start); "
        "0: off.",
    )
    images_per_prompt: Count = Field(1, description="Images per held-out caption; their noise never changes.")
    every: Count = Field(5, description="Iterations between evaluations; the untrained model is evaluated first.")
    patience: Count | None = Field(
        None,
        description="End the run after this many evaluations without a new best, and keep the weights of the best; "
        "null: never.",
    )
    min_delta: NonNegative = Field(0.0, description="A new best must exceed the old one by more than this.")


class EmaSection(Section):
    """Weights that are evaluated."""

    decay: Decay | None = Field(
        None,
        description="After every optimizer step EMA <- decay * EMA + (1 - decay) * weights; the EMA is what is saved "
        "as adapter and evaluated. null: the trained weights are.",
    )
    warmup: Flag = Field(
        False,
        description="Whether the decay rises to `decay`, so that the first weights do not stay in the average for "
        "long: min(decay, (1 + n) / (10 + n)) after the n-th optimizer step (Flow-GRPO's and AWM's code, with decay "
        "0.9 and 0.99).",
    )

    def decay_at(self, step: int) -> float:
        """The decay after the `step`-th optimizer step, counted from 1; only where there is an average."""
        assert self.decay is not None, "there is an average"
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
