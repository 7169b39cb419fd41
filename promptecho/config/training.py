"""Section `training`: what a run does. Defaults are the paper's, where it states a value."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from promptecho.config.fields import (
    Checkpointing,
    Count,
    CountOrZero,
    Decay,
    Flag,
    NonNegative,
    Positive,
    Section,
    Seed,
    Share,
    Text,
)
from promptecho.config.image_sizes import Sized
from promptecho.config.rewards import PlacementSection, RewardSection, VlmSection
from promptecho.config.trackers import TrackerSection
from promptecho.config.training_parts import (
    AdvantageSection,
    EmaSection,
    GrpoSection,
    HeldoutSection,
    KlBaseSection,
    KlEmaSection,
    LoraSection,
    NftSection,
    SamplingSection,
    TimestepsSection,
    Weighting,
)
from promptecho.config.training_sizes import BucketsSection, SizeBy, SizeSection

ONE_SIZE: dict[str, Any] = {"sizes": None, "buckets": None, "size_by": "draw"}  # where no key asks for several


class TrainingConfig(Section):
    """Everything one run does; `runs.R` overrides any key of it."""

    seed: Seed = Field(1, description="Seed of prompts' order, noise and timesteps.")
    preset: Text | None = Field(
        None,
        description="Name of a file of `training` keys, config/presets/NAME.yaml, such as awm-published. In "
        "`training` the keys written beside it go over the preset's; in a run the preset goes over `training`, and the "
        "run's own keys over the preset's. Resolved before anything else: null in resolved configurations.",
    )
    algorithm: Literal["awm", "nft", "grpo"] = Field(
        "awm",
        description="What the update makes of advantages (docs/training.md). awm: AWM, the paper's; nft: DiffusionNFT "
        "(arXiv 2509.16117), which needs neither ratios nor clipping; grpo: Flow-GRPO (arXiv 2505.05470), whose images "
        "come from a stochastic sampler, and whose ratios are those of its steps.",
    )
    iterations: Count = Field(
        300,
        description="Iterations in total. If you raise it later and keep the old end as a checkpoint, the run goes on.",
    )
    checkpoints: list[Count] | None = Field(
        None, description="Iterations after which a checkpoint is kept, increasing; the last one equals `iterations`."
    )
    checkpoint_every: Count | None = Field(
        None,
        description="Instead of `checkpoints`: keep one every so many iterations, and the last. "
        "With neither, only the last is kept.",
    )
    height: Count | None = Field(
        None,
        description="Height of training images in pixels; null: that of models.t2i. Smaller images are cheaper to "
        "train on than those that are evaluated (docs/training.md).",
    )
    width: Count | None = Field(None, description="Width of training images in pixels; null: that of models.t2i.")
    sizes: Annotated[list[SizeSection], Field(min_length=2)] | None = Field(
        None,
        description="Several sizes of training images, such as [{height: 1024, width: 1024, weight: 2}, {height: 896, "
        "width: 1152}], in place of `height` and `width`. All images of a prompt have one of them, as `size_by` says "
        "(docs/training.md). Not with zero_stage 3, nor with algorithm: grpo.",
    )
    buckets: BucketsSection | None = Field(
        None,
        description="Several sizes as aspect-ratio buckets, such as {pixels: 1048576, max_ratio: 2.0, multiple: 64}, "
        "in place of `sizes`: all that the budget of pixels allows, wide and tall; `promptecho config check` and "
        "`plan` list them (docs/training.md). They go with what `sizes` goes with.",
    )
    size_by: SizeBy = Field(
        "draw",
        description="Which of several sizes a prompt has. draw: its id and `seed` decide, in proportion to the "
        "weights; image: that whose aspect ratio is nearest to the image which the prompt captions, or to the `width` "
        "and `height` that stand beside it in `captions.prompts`.",
    )
    prompts_per_iteration: Count = Field(32, description="Prompts (groups) per iteration.")
    images_per_prompt: Count = Field(8, description="Images per prompt (group size), at least 2.")
    update_images_per_prompt: Count | None = Field(
        None,
        description="How many of a prompt's images the update trains on, at least 2: those whose advantages have the "
        "largest variance, which are some of the best and some of the worst (PODS, arXiv 2504.13818). Their mean is "
        "subtracted. All images are sampled and get rewards; reference passes and updates cost as much less. "
        "null: all.",
    )
    batch_size: Count = Field(128, description="Images per optimizer step, over all processes.")
    passes: Count = Field(4, description="Passes over an iteration's images.")
    micro_batch_size: Count = Field(
        8, description="Images per forward pass of one process, at most; where they can't be dealt out evenly, fewer."
    )
    learning_rate: Positive = Field(
        5e-5,
        description="AdamW learning rate, the highest one: `warmup_steps` lead up to it, `lr_schedule` down from it.",
    )
    warmup_steps: CountOrZero = Field(
        0,
        description="Optimizer steps over which the learning rate rises linearly from 0; Adam's first steps know "
        "nothing of the gradient's size and are the largest.",
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the learning rate goes on after `warmup_steps`. constant: it stays; linear: it falls on a "
        "straight line; cosine: along half a cosine, slowly at first and at the end. It reaches `lr_floor` after "
        "`lr_decay_iterations`.",
    )
    lr_decay_iterations: Count | None = Field(
        None,
        description="Iterations, warm-up included, after which a falling `lr_schedule` has reached its floor, where it "
        "then stays; null: `iterations`. Name it if you may raise `iterations` later: a finished run goes on only with "
        "the schedule that it was trained with.",
    )
    lr_floor: Share = Field(
        0.0,
        description="Where a falling `lr_schedule` ends, as a share of `learning_rate`. A run that goes on behind "
        "`lr_decay_iterations` needs one above 0.",
    )
    weight_decay: NonNegative = Field(1e-4, description="AdamW weight decay.")
    adam_beta1: Decay = Field(0.9, description="AdamW beta1.")
    adam_beta2: Decay = Field(0.999, description="AdamW beta2.")
    adam_eps: Positive = Field(
        1e-8,
        description="AdamW's epsilon, added to the root of the second moment (torch's default, AWM's too). An element "
        "whose gradient lies far below it hardly moves: `grad_below_eps` in metrics.jsonl is their share.",
    )
    max_grad_norm: Positive = Field(1.0, description="Gradients are clipped to this global norm.")
    finetuning: Literal["lora", "full"] = Field(
        "lora",
        description="What is trained. lora: an adapter beside the frozen transformer; full: all weights of the "
        "transformer, in float32 (`models.t2i.dtype`), for small models: weights, gradients, Adam's moments and the "
        "averages are each as large as the transformer, in memory and in every checkpoint. `promptecho plan` says "
        "whether that fits.",
    )
    lora: LoraSection = Field(default_factory=LoraSection, description="The adapter, with `finetuning: lora`.")
    init_adapter: Text | None = Field(
        None,
        description="The adapter that training begins with, in place of one that does nothing yet: the name of an "
        "entry of `runs` that has `adapter` (a folder, a LoRA file or a hub id, of PEFT, diffusers or other trainers), "
        "or the checkpoint of another run, RUN@STEP. `lora` must be as in that adapter. The base model stays as it is.",
    )
    sampling: SamplingSection = Field(default_factory=SamplingSection, description="Sampling of training images.")
    timesteps: TimestepsSection = Field(default_factory=TimestepsSection, description="Timesteps of the loss.")
    weighting: Weighting = Field(
        "ghuber",
        description="The matching log-probability l, with m = mean squared error of velocity against noise - x0 over "
        "an image's dimensions (AWM, arXiv 2509.25050; its published configurations have ghuber with power 0.25). "
        "uniform: -m; t: -t m; t2: -t^2 m; huber: -t (sqrt(m + 1e-10) - 1e-5); ghuber: "
        "-t ((m + 1e-10)^p - 1e-10^p) / p.",
    )
    ghuber_power: Positive = Field(0.25, description="Power p of the ghuber weighting.")
    clip_range: Positive = Field(
        0.2,
        description="c of the loss mean(max(-A r, -A clip(r, 1 - c, 1 + c))), r = exp(l - l_old), l_old frozen at the "
        "iteration's start (PPO's clip). Published by AWM: 1, which hardly ever clips; 0.2 is PPO's usual value.",
    )
    per_timestep: Flag = Field(
        True,
        description="true: r per timestep and image, one forward pass each; false: r = exp(mean_t l - mean_t l_old), "
        "all timesteps of an image in one forward pass.",
    )
    nft: NftSection = Field(default_factory=NftSection, description="Keys of `algorithm: nft`.")
    grpo: GrpoSection = Field(default_factory=GrpoSection, description="Keys of `algorithm: grpo`.")
    advantage: AdvantageSection = Field(default_factory=AdvantageSection, description="Rewards to advantages.")
    kl_base: KlBaseSection = Field(default_factory=KlBaseSection, description="KL to the base model.")
    kl_ema: KlEmaSection = Field(default_factory=KlEmaSection, description="KL to a moving average of the policy.")
    ema: EmaSection = Field(default_factory=EmaSection, description="Weights that are evaluated.")
    train_guidance: Flag = Field(
        False,
        description="Whether the velocity in the loss is the guided one, with `sampling.guidance_scale`: twice the "
        "passes (but of families that are guided in one pass), and the policy of the loss is then the one that "
        "samples. Off: the conditional velocity. "
        "`algorithm: grpo` always has the guided one, since its ratio is that of the steps that were sampled.",
    )
    control: Literal["none", "permuted_rewards"] = Field(
        "none",
        description="permuted_rewards: a control run. Each prompt's rewards are assigned again, in another "
        "order, to its own images, so that "
        "advantages have the same sizes and mean nothing; what such a run gains is not the reward's doing.",
    )
    rewards: Annotated[list[RewardSection], Field(min_length=1)] | None = Field(
        None, description="Weighted rewards of a run that differs from the experiment's `rewards`; null: those."
    )
    reward_vlm: VlmSection | None = Field(
        None, description="VLM that gives the rewards where it is not the one that captions; null: `models.vlm`."
    )
    reward_placement: PlacementSection = Field(
        default_factory=PlacementSection, description="Where the reward's VLM sits."
    )
    zero_stage: Literal[1, 2, 3] = Field(
        1,
        description="DeepSpeed ZeRO stage: 1 shards optimizer state over the GPUs, 2 gradients too (both small with "
        "LoRA), 3 also the frozen weights, for a model that does not fit on one GPU; each layer is then gathered for "
        "every pass.",
    )
    activation_checkpointing: Checkpointing = Field(
        "off",
        description="Which activations of the transformer's blocks are computed again in the backward pass instead of "
        "kept: less memory, the same gradients. off: none. selective: all but the results of linear layers and of "
        "attention, which are most of the work and a part of the memory. full: all, one more forward pass. auto: the "
        "first of these that fits the GPU by `promptecho plan`; on a CPU, off. true is full, false is off.",
    )
    save_every_s: CountOrZero = Field(
        600, description="Seconds between saves of the rolling state; 0: after every iteration."
    )
    keep_states: Count = Field(
        2, description="Rolling states kept while a segment runs; the older ones serve if the newest is damaged."
    )
    accept_captions: Flag = Field(
        False,
        description="true: a run goes on from its state although captions, labels or held-out captions that it has "
        "used have changed since; state and metrics say from which iteration on. Captions that it has not "
        "used yet may change "
        "without it.",
    )
    timeout_s: Count = Field(
        1800,
        description="Longest time between two step boundaries (a batch of images, a batch of rewards, an optimizer "
        "step) before a process counts as hanging; the run then ends and names rank and phase. Loading has its own.",
    )
    load_timeout_s: Count = Field(
        7200,
        description="Longest time that one model may load on one process (reading from a slow disk, or waiting for a "
        "copy on the node's disk) before it counts as hanging. Meanwhile a line each minute says how far it is.",
    )
    heldout: HeldoutSection = Field(default_factory=HeldoutSection, description="Held-out reward and early stop.")
    trackers: list[TrackerSection] = Field(
        default_factory=lambda: [TrackerSection()],
        description="Where metrics and sample images go besides `metrics.jsonl` (docs/trackers.md): names, such as "
        "[tensorboard, wandb], or entries with settings, such as {name: wandb, wandb: {mode: offline}}. At first "
        "[tensorboard]; []: nowhere. A change makes no training again.",
    )
    tracked_images: CountOrZero = Field(
        8,
        description="Prompts of which trackers get an image at the run's start and at every checkpoint, each from the "
        "same noise every time: the first that `heldout` watches, or else the first training prompts. They take as "
        "long as so many images of training, shared among the processes. 0: none.",
    )

    def size(self, t2i: Sized) -> tuple[int, int]:
        """Height and width of training images in pixels; of several sizes the one with the most."""
        return max(self.image_sizes(t2i), key=lambda size: size[0] * size[1])

    def image_sizes(self, t2i: Sized) -> list[tuple[int, int]]:
        """Heights and widths of all sizes of training images in pixels."""
        if self.sizes is not None:
            return [(one.height, one.width) for one in self.sizes]
        if self.buckets is not None:
            return self.buckets.sizes(t2i)
        return [(self.height or t2i.height, self.width or t2i.width)]

    @property
    def has_several_sizes(self) -> bool:
        """Whether images are not all of one size."""
        return self.sizes is not None or self.buckets is not None

    def size_weights(self, t2i: Sized) -> list[float]:
        """How often each of the sizes occurs, in their order; of `size_by: image`, which nobody knows beforehand, as if
        all occurred equally often."""
        return [1.0] * len(self.image_sizes(t2i)) if self.sizes is None else [one.weight for one in self.sizes]

    def of_size(self, height: int, width: int) -> TrainingConfig:
        """The same training on images of one size."""
        return self.model_copy(update={"height": height, "width": width, **ONE_SIZE})

    @property
    def guides_loss(self) -> bool:
        """Whether the velocity in the loss is the guided one."""
        return self.train_guidance or self.algorithm == "grpo"

    @property
    def sampled_images(self) -> int:
        """Images that an iteration samples."""
        return self.prompts_per_iteration * self.images_per_prompt

    @property
    def update_group(self) -> int:
        """Images of a prompt that the update trains on."""
        return self.update_images_per_prompt or self.images_per_prompt

    @property
    def update_images(self) -> int:
        """Images of an iteration that the update trains on."""
        return self.prompts_per_iteration * self.update_group

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of an iteration."""
        return self.passes * (self.update_images // self.batch_size)

    @property
    def decay_iterations(self) -> int | None:
        """Iterations after which the learning rate has fallen to its floor; None: it does not fall."""
        return None if self.lr_schedule == "constant" else self.lr_decay_iterations or self.iterations

    def learning_rate_at(self, steps: int) -> float:
        """The learning rate of the optimizer step after so many; a function of nothing else, so that neither stops nor
        segments change it. Behind the warm-up it is what `transformers.get_scheduler` gives for `linear` and
        `cosine_with_min_lr`, but that the end stays the end."""
        rate = self.learning_rate * min(1.0, (steps + 1) / max(self.warmup_steps, 1))
        if self.decay_iterations is None or steps < self.warmup_steps:
            return rate
        falling = self.decay_iterations * self.steps_per_iteration - self.warmup_steps
        progress = min(1.0, (steps - self.warmup_steps) / max(falling, 1))
        left = 1 - progress if self.lr_schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return rate * (self.lr_floor + (1 - self.lr_floor) * left)

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps at which this run keeps a checkpoint, increasing; the last one is `iterations`."""
        if self.checkpoints is not None:
            return list(self.checkpoints)
        every = self.checkpoint_every or self.iterations
        return [*range(every, self.iterations, every), self.iterations]
