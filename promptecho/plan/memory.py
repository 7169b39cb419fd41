"""Where the memory of one GPU goes: what it holds throughout, and what each phase of an iteration adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from promptecho.config.rewards import PlacementSection, RewardSection
from promptecho.config.training import TrainingConfig
from promptecho.phases import Phase
from promptecho.plan.costs import T2iCosts, VlmCosts
from promptecho.plan.settings import Settings
from promptecho.train.deal import drawn_timesteps, images_of_ranks, largest_share, timesteps_per_forward
from promptecho.train.placement.layout import RankLayout

FLOAT32 = 4
REDUCE_BUCKET = 500_000_000 * FLOAT32  # bytes, DeepSpeed's default, allocated for every backward pass
ZERO3_LIVE = 1_000_000_000  # weights that DeepSpeed keeps gathered at most, its default


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on one GPU: `held` by part throughout, `phases` add their own parts."""

    who: str  # trainer | reward server | generation
    held: dict[str, int]
    phases: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        return sum(self.held.values())

    def bytes_in(self, phase: str) -> int:
        """All that is there in a phase."""
        return self.held_bytes + sum(self.phases[phase].values())

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=self.bytes_in)

    @property
    def peak(self) -> int:
        return self.bytes_in(self.peak_phase)

    def facts(self) -> dict:
        return {
            "who": self.who, "held": self.held, "phases": self.phases,
            "totals": {phase: self.bytes_in(phase) for phase in self.phases},
            "peak_phase": self.peak_phase, "peak": self.peak,
        }  # fmt: skip


Vlms = Sequence[VlmCosts | None]  # of each reward of a run; None where it needs none


def distinct(vlms: Vlms) -> list[VlmCosts]:
    """Each VLM once: one that several rewards have is loaded once."""
    return list(dict.fromkeys(vlm for vlm in vlms if vlm is not None))


def vlm_share(vlms: Vlms, placement: PlacementSection, ranks: int) -> tuple[int, int]:
    """(bytes of the rewards' VLMs that a GPU holds, bytes that a pass gathers besides), as vlm/sharding.py says. All
    VLMs are held, and those of one are gathered at a time.

    Args:
        ranks: GPUs of a node that share one copy.
    """
    shares = [_share_of(vlm, placement, ranks) for vlm in distinct(vlms)]
    return sum(held for held, _ in shares), max((gathered for _, gathered in shares), default=0)


def _share_of(vlm: VlmCosts, placement: PlacementSection, ranks: int) -> tuple[int, int]:
    mode = placement.mode
    if mode == "replicated" or (mode != "offloaded" and ranks == 1):
        return vlm.bytes, 0
    held = 0 if mode == "offloaded" else -(-vlm.bytes // ranks)
    if placement.gather == "phase":  # and the buffer in which the last block comes
        return held, vlm.bytes + max(vlm.rest_bytes, *vlm.block_bytes[:1])
    return held, vlm.rest_bytes + sum(vlm.block_bytes[:3])


def trainer_memory(
    t2i: T2iCosts, vlms: Vlms, rewards: list[RewardSection], training: TrainingConfig, layout: RankLayout,
    settings: Settings,
) -> GpuMemory:  # fmt: skip
    """One GPU that trains, with the largest share of an iteration's images."""
    world, mode = layout.trainers, training.reward_placement.mode
    share, updated = -(-training.sampled_images // world), -(-training.update_images // world)
    held, gathered_vlm = _held(t2i, vlms, training, layout, settings)
    live = _live(t2i, training)
    sampled = min(training.sampling.batch_size, share)
    micro = min(training.micro_batch_size, largest_share(training, world))
    rows, compared = drawn_timesteps(training), references(training)
    mine = images_met(training, world)
    one = rows * t2i.latent_bytes
    phases: dict[str, dict[str, int]] = {
        Phase.ENCODE: _encoding(t2i, settings),
        Phase.SAMPLE: {
            "activations": t2i.sample_step(sampled, training.sampling.guidance_scale).peak,
            "folded adapter": t2i.folded_bytes, **live,
        },
        Phase.DECODE: {"activations": t2i.decode(sampled).peak, "folded adapter": t2i.folded_bytes},
    }  # fmt: skip
    if mode != "dedicated":
        phases[Phase.REWARD] = {
            "activations": _reward_activations(vlms, rewards, share, settings),
            "gathered layers": gathered_vlm,
        }
    phases[Phase.PRECOMPUTE] = {
        "activations": t2i.velocity(min(micro, updated), training).peak, **live,
        # Noise and velocities of this rank's images; what was received of other ranks, and as it arrived.
        "noise and references": updated * one * (2 + compared)
        + (mine * (compared + 1) * one if world > 1 and compared else 0),
    }  # fmt: skip
    phases[Phase.UPDATE] = _update(t2i, training, layout)
    return GpuMemory("trainer", {part: size for part, size in held.items() if size}, _without_zeros(phases))


def update_bytes(t2i: T2iCosts, vlms: Vlms, training: TrainingConfig, layout: RankLayout, settings: Settings) -> int:
    """What a GPU that trains has in the update alone."""
    held, _ = _held(t2i, vlms, training, layout, settings)
    return sum(held.values()) + sum(_update(t2i, training, layout).values())


def _held(
    t2i: T2iCosts, vlms: Vlms, training: TrainingConfig, layout: RankLayout, settings: Settings
) -> tuple[dict[str, int], int]:
    """(what a GPU that trains holds throughout by part, what a pass of the VLM gathers besides)."""
    world, mode = layout.trainers, training.reward_placement.mode
    share, adapter = -(-training.sampled_images // world), FLOAT32 * t2i.trained_params
    partitioned = training.zero_stage == 3
    full = training.finetuning == "full"
    kind, weights = ("" if full else "LoRA "), t2i.transformer_bytes + (t2i.adapter_bytes if partitioned else 0)
    held = {
        "transformer": -(-weights // world) if partitioned else t2i.transformer_bytes,
        "text encoder": 0 if settings.prompt_cache else t2i.text_encoder_bytes,
        "VAE": t2i.vae_bytes,
        "LoRA weights": 0 if partitioned else t2i.adapter_bytes,
        f"{kind}gradients": adapter if training.zero_stage == 1 else -(-adapter // world),
        "optimizer": -(-3 * adapter // world),  # master weights and two moments
    }
    gathered_vlm = 0
    if mode != "dedicated":
        held["reward VLM"], gathered_vlm = vlm_share(vlms, training.reward_placement, layout.trainers_per_node)
    # The state at the iteration's start, its new average, and with `ema` the averages at the start, before and behind a
    # step; the best weights so far, where a run may stop on them.
    copies = 3 + 3 * (training.ema.decay is not None) + (training.heldout.patience is not None)
    copies += full and training.kl_base.weight > 0
    held[f"{kind}state"] = copies * adapter + -(-2 * adapter // world)
    # A stochastic sampler's images come with all that they passed through.
    latents = training.sampling.num_inference_steps + 2 if training.algorithm == "grpo" else 1
    held["prompts and latents"] = training.prompts_per_iteration * t2i.prompt_bytes + share * latents * t2i.latent_bytes
    return held, gathered_vlm


def _live(t2i: T2iCosts, training: TrainingConfig) -> dict[str, int]:
    """Layers that ZeRO-3 keeps gathered."""
    if training.zero_stage != 3:
        return {}
    weights = t2i.transformer_bytes + t2i.adapter_bytes
    per_weight = t2i.transformer_bytes / t2i.transformer_params
    return {"gathered layers": min(weights, round(ZERO3_LIVE * per_weight))}


def _update(t2i: T2iCosts, training: TrainingConfig, layout: RankLayout) -> dict[str, int]:
    micro = min(training.micro_batch_size, largest_share(training, layout.trainers))
    rows, compared = drawn_timesteps(training), references(training)
    mine = images_met(training, layout.trainers)
    return {
        "activations": t2i.loss(micro, training).peak, **_live(t2i, training),
        "noise and references": mine * t2i.latent_bytes * (1 + rows * (1 + compared)),
        "micro-batch": micro * timesteps_per_forward(training) * t2i.latent_bytes * (2 + compared),
        "reduce bucket": REDUCE_BUCKET,
    }  # fmt: skip


def server_memory(
    vlms: Vlms, rewards: list[RewardSection], training: TrainingConfig, layout: RankLayout, settings: Settings
) -> GpuMemory:
    """One GPU that serves rewards (mode dedicated)."""
    servers = layout.servers_per_node
    held, gathered = vlm_share(vlms, training.reward_placement, servers)
    request = min(training.sampling.batch_size, -(-training.sampled_images // layout.trainers))
    parts = {
        "activations": _reward_activations(vlms, rewards, -(-request // servers), settings),
        "gathered layers": gathered,
    }
    return GpuMemory("reward server", {"reward VLM": held}, _without_zeros({Phase.REWARD: parts}))


def generation_memory(t2i: T2iCosts, batch_size: int, guidance_scale: float, settings: Settings) -> GpuMemory:
    """The GPU of a generation job: all of the model, with the adapter."""
    held = {
        "transformer": t2i.transformer_bytes, "VAE": t2i.vae_bytes, "LoRA weights": t2i.adapter_bytes,
    } | ({} if settings.prompt_cache else {"text encoder": t2i.text_encoder_bytes})  # fmt: skip
    phases: dict[str, dict[str, int]] = {
        Phase.ENCODE: _encoding(t2i, settings),
        Phase.SAMPLE: {
            "activations": t2i.sample_step(batch_size, guidance_scale).peak, "folded adapter": t2i.folded_bytes
        },
        Phase.DECODE: {"activations": t2i.decode(batch_size).peak, "folded adapter": t2i.folded_bytes},
    }  # fmt: skip
    return GpuMemory("generation", held, _without_zeros(phases))


def host_bytes(vlms: Vlms, training: TrainingConfig) -> int:
    """Pinned host memory of a node for the rewards' VLMs."""
    return sum(vlm.bytes for vlm in distinct(vlms)) if training.reward_placement.mode == "offloaded" else 0


def _encoding(t2i: T2iCosts, settings: Settings) -> dict[str, int]:
    """What encoding prompts adds: with a cache of embeddings the text encoder itself, which else always stays."""
    encoder = t2i.text_encoder_bytes if settings.prompt_cache else 0
    return {"activations": t2i.encode().peak, "text encoder": encoder}


def images_met(training: TrainingConfig, ranks: int) -> int:
    """Images that the rank with most of them meets in the passes of an iteration."""
    return max(map(len, images_of_ranks(training.update_images, training, 0, ranks)))


def references(training: TrainingConfig) -> int:
    """Tensors of the latents' size that the loss takes beside the noise, for each image and time: the velocities of its
    KL terms, of nft those of the weights that sampled, of grpo where a step began and ended."""
    own = {"awm": 0, "nft": 1, "grpo": 2}[training.algorithm]
    return (training.kl_ema.weight > 0) + (training.kl_base.weight > 0) + own


def _reward_activations(vlms: Vlms, rewards: list[RewardSection], images: int, settings: Settings) -> int:
    peaks = []
    for entry, vlm in zip(rewards, vlms, strict=True):
        n = reward_batch(entry, images)
        if vlm is None:
            continue
        peaks.append(vlm.reward(n, entry, settings.query).peak)
        if entry.reward.writes:
            peaks.append(vlm.more_tokens(n, entry, settings.longest_reply(entry)).peak)
    return max(peaks, default=0)


def reward_batch(entry: RewardSection, images: int) -> int:
    """Images, or replies, that the VLM takes together on a GPU that has so many images."""
    return min(entry.batch_size, images * samples_of(entry))


def samples_of(entry: RewardSection) -> int:
    """Replies that the VLM writes for an image; 1 where it writes none."""
    return entry.options.samples if entry.reward.writes else 1


def _without_zeros(phases: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {phase: {part: size for part, size in parts.items() if size} for phase, parts in phases.items()}
