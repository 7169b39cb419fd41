"""How long each phase of an iteration takes on the slowest GPU, and how many FLOPs all GPUs together spend on it."""

from __future__ import annotations

from dataclasses import dataclass

from promptecho.config.rewards import RewardSection
from promptecho.config.training import TrainingConfig
from promptecho.phases import Phase
from promptecho.plan.costs import T2iCosts
from promptecho.plan.gpus import Gpu
from promptecho.plan.memory import FLOAT32, Vlms, distinct, images_met, references, reward_batch, samples_of
from promptecho.plan.settings import Settings
from promptecho.plan.trace import Cost
from promptecho.train.deal import accumulation, drawn_timesteps, groups_per_pass, largest_share
from promptecho.train.placement.layout import RankLayout
from promptecho.train.speed import reference_sets


@dataclass(frozen=True)
class PlannedPhase:
    """`flops` of all GPUs, `seconds` of the slowest, and what bounds these: computing, memory, link, host, network."""

    name: Phase
    flops: int
    seconds: float
    bound: str


@dataclass(frozen=True)
class Clock:
    """Seconds from FLOPs and bytes, as the settings assume; `nodes` decides which way ranks take to each other."""

    gpu: Gpu
    settings: Settings
    nodes: int

    def compute(self, cost: Cost, phase: Phase) -> float:
        """The rate of each number format is that of the datasheet times the share that the phase reaches."""
        return sum(flops / self.gpu.rate(kind) for kind, flops in cost.flops.items()) / self.settings.share(phase)

    def read(self, n_bytes: float) -> float:
        """From the GPU's own memory."""
        return n_bytes / self._rate(self.gpu.memory_gb_s)

    def link(self, n_bytes: float) -> float:
        """From the other GPUs of the node."""
        return n_bytes / self._rate(self.gpu.link_gb_s)

    def host(self, n_bytes: float) -> float:
        """From the host's memory."""
        return n_bytes / self._rate(self.gpu.host_gb_s)

    def ranks(self, n_bytes: float) -> float:
        """From all other ranks, wherever they are."""
        if self.nodes == 1:
            return self.link(n_bytes)
        return n_bytes / self._rate(min(self.settings.network_gb_s, self.gpu.link_gb_s))

    def _rate(self, gb_s: float) -> float:
        return 1e9 * gb_s * self.settings.transfer


def iteration_phases(
    t2i: T2iCosts, vlms: Vlms, rewards: list[RewardSection], training: TrainingConfig, layout: RankLayout,
    clock: Clock,
) -> list[PlannedPhase]:  # fmt: skip
    """The phases of one iteration, without held-out evaluations."""
    images = training.update_images
    phases = rollout_phases(
        t2i, vlms, rewards, training, layout, clock, training.prompts_per_iteration, training.images_per_prompt
    )
    share, world = -(-images // layout.trainers), layout.trainers
    gather = _zero3_gather(t2i, training, layout, clock)

    rows = drawn_timesteps(training)
    micro = min(training.micro_batch_size, share)
    once = t2i.velocity(micro, training).times(1 / micro)
    sets = reference_sets(training, iteration=1)
    batches = sets * rows * -(-share // micro)
    phases.append(
        _phase(Phase.PRECOMPUTE, once.times(sets * rows * images),
               clock.compute(once.times(sets * rows * share), Phase.PRECOMPUTE), network=batches * gather)
    )  # fmt: skip

    units = training.passes * images * groups_per_pass(training)
    largest, steps = largest_share(training, world), training.passes * images // training.batch_size
    size = min(training.micro_batch_size, largest)
    loss = t2i.loss(size, training)
    # Under ZeRO-3 forward and backward gather the layers, once each.
    network = 2 * steps * accumulation(training, world) * gather
    phases.append(
        _phase(Phase.UPDATE, loss.times(units / size), clock.compute(loss.times(steps * largest / size), Phase.UPDATE),
               network=network)
    )  # fmt: skip

    moved = exchanged_bytes(training, world, t2i.trained_params, t2i.latent_bytes)
    phases.append(_phase(Phase.EXCHANGE, Cost(), 0.0, network=clock.ranks(moved)))
    return phases


def averaged(found: list[tuple[float, list[PlannedPhase]]]) -> list[PlannedPhase]:
    """Phases on average over several sizes of images, each with its weight; the largest part names what bounds one."""
    if len(found) == 1:
        return found[0][1]
    total, mean = sum(weight for weight, _ in found), []
    for phases in zip(*(phases for _, phases in found), strict=True):
        parts = [
            (weight / total * phase.seconds, weight / total * phase.flops, phase.bound)
            for (weight, _), phase in zip(found, phases, strict=True)
        ]
        seconds, flops = sum(part[0] for part in parts), round(sum(part[1] for part in parts))
        mean.append(PlannedPhase(phases[0].name, flops, seconds, max(parts)[2]))
    return mean


def exchanged_bytes(training: TrainingConfig, ranks: int, trained_params: int, latent_bytes: int) -> float:
    """Bytes that the busiest of so many ranks sends in an iteration: in each step gradients are summed, which sends
    them twice, and weights gathered; latents and references go to who meets the image."""
    steps = training.passes * training.update_images // training.batch_size
    received = images_met(training, ranks) * latent_bytes * (1 + drawn_timesteps(training) * references(training))
    return (ranks - 1) / ranks * (3 * steps * FLOAT32 * trained_params + received)


def rollout_phases(
    t2i: T2iCosts, vlms: Vlms, rewards: list[RewardSection], training: TrainingConfig, layout: RankLayout,
    clock: Clock, n_prompts: int, per_prompt: int,
) -> list[PlannedPhase]:  # fmt: skip
    """Prompts to rewards: of an iteration, or of the held-out captions."""
    images, world = n_prompts * per_prompt, layout.trainers
    share = -(-images // world)
    sampled = min(training.sampling.batch_size, share)
    iteration_share = -(-training.sampled_images // world)  # what is known of it serves held-out evaluations too
    usual = min(training.sampling.batch_size, iteration_share)
    steps, scale = training.sampling.num_inference_steps, training.sampling.guidance_scale
    encode = t2i.encode()
    step = t2i.sample_step(usual, scale).times(1 / usual)
    decode = t2i.decode(usual).times(1 / usual)
    gather = _zero3_gather(t2i, training, layout, clock)
    batches = -(-share // sampled)
    # With a cache each prompt is encoded by one rank, else by all. (Held-out prompts once in a run, which is nothing.)
    encoded = -(-n_prompts // world) if clock.settings.prompt_cache else n_prompts
    total = n_prompts if clock.settings.prompt_cache else n_prompts * world
    phases = [
        _phase(Phase.ENCODE, encode.times(total), clock.compute(encode.times(encoded), Phase.ENCODE),
               memory=encoded * clock.read(t2i.text_encoder_bytes)),
        _phase(Phase.SAMPLE, step.times(steps * images), clock.compute(step.times(steps * share), Phase.SAMPLE),
               network=steps * batches * gather),
        _phase(Phase.DECODE, decode.times(images), clock.compute(decode.times(share), Phase.DECODE)),
    ]  # fmt: skip
    if training.reward_placement.mode != "dedicated":
        found = reward_work(vlms, rewards, training, share, layout.trainers_per_node, clock, iteration_share)
        phases.append(_merged(Phase.REWARD, found, images / share))
        return phases
    # Images go to the node's servers batch by batch: all but the last batch are scored while sampling goes on.
    per_node, servers = layout.trainers_per_node, layout.servers_per_node
    request = -(-sampled // servers)
    found = reward_work(vlms, rewards, training, request, servers, clock, -(-usual // servers))
    one = sum(phase.seconds for phase in found)
    whole = per_node * batches * one
    sampling = phases[1].seconds + phases[2].seconds
    waiting = max(per_node * one, whole - sampling * (batches - 1) / batches)
    phase = _merged(Phase.REWARD, found, images / request)
    phases.append(PlannedPhase(Phase.REWARD, phase.flops, waiting, phase.bound))
    return phases


def reward_work(
    vlms: Vlms, rewards: list[RewardSection], training: TrainingConfig, images: int, ranks: int, clock: Clock,
    usual: int,
) -> list[PlannedPhase]:  # fmt: skip
    """What `images` images take on one GPU; FLOPs are this GPU's.

    Args:
        ranks: GPUs that share one copy of the VLM's weights.
        usual: images of a GPU in an iteration; the cost of one is taken from a batch of these.
    """
    mode, settings = training.reward_placement.mode, clock.settings
    sharded = mode == "offloaded" or (mode != "replicated" and ranks > 1)

    def moved(n_bytes: int) -> dict[str, float]:
        """Seconds that a pass waits for weights."""
        if not sharded:
            return {}
        ways = {"link": clock.link(n_bytes * (ranks - 1) / ranks)}
        if mode == "offloaded":
            ways["host"] = clock.host(n_bytes / ranks)
        return ways

    phases = []
    if sharded and training.reward_placement.gather == "phase" and distinct(vlms):
        phases += [_phase(Phase.REWARD, Cost(), 0.0, **moved(vlm.bytes)) for vlm in distinct(vlms)]
        sharded = False  # passes find all weights
    for entry, vlm in zip(rewards, vlms, strict=True):
        n = reward_batch(entry, images)
        rows = images * samples_of(entry)
        together = reward_batch(entry, usual)
        passes, share = -(-rows // n), rows / together
        if seconds := images * entry.reward.seconds_per_image:
            phases.append(PlannedPhase(Phase.REWARD, 0, seconds, "computing"))
        if vlm is None:
            continue
        cost = vlm.reward(together, entry, settings.query).times(share)
        ways = {way: passes * seconds for way, seconds in moved(vlm.bytes).items()}
        phases.append(_phase(Phase.REWARD, cost, clock.compute(cost, Phase.REWARD), **ways))
        if not entry.reward.writes:
            continue
        tokens = settings.reply(entry)
        more = vlm.more_tokens(together, entry, tokens).times(share)
        steps = passes * (tokens - 1)
        cache = n * vlm.cache_bytes(vlm.input_tokens(entry) + tokens // 2)
        ways = {way: steps * seconds for way, seconds in moved(vlm.text_bytes).items()}
        ways["memory"] = steps * clock.read(vlm.text_bytes + cache)
        phases.append(_phase(Phase.REWARD, more, clock.compute(more, Phase.REWARD), **ways))
    return phases or [PlannedPhase(Phase.REWARD, 0, 0.0, "computing")]


def _zero3_gather(t2i: T2iCosts, training: TrainingConfig, layout: RankLayout, clock: Clock) -> float:
    """Seconds to gather all layers of the transformer for one pass."""
    if training.zero_stage != 3 or layout.trainers == 1:
        return 0.0
    return clock.ranks(t2i.transformer_bytes * (layout.trainers - 1) / layout.trainers)


def _phase(name: Phase, total: Cost, computing: float, **ways: float) -> PlannedPhase:
    """Computing and each way of moving bytes overlap; the longest bounds the phase."""
    bounds = {"computing": computing, **ways}
    bound = max(bounds, key=lambda key: bounds[key])
    return PlannedPhase(name, total.total, bounds[bound], bound)


def _merged(name: Phase, parts: list[PlannedPhase], times: float) -> PlannedPhase:
    """Parts in turn, with the FLOPs of `times` as many GPUs; the longest part names the bound."""
    longest = max(parts, key=lambda part: part.seconds)
    return PlannedPhase(name, round(times * sum(p.flops for p in parts)), sum(p.seconds for p in parts), longest.bound)
