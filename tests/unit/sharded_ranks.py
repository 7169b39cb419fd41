"""Two ranks that share a tiny VLM, forked from one process; prints a line of JSON for each of them.

    python sharded_ranks.py

Each has images of its own, rank 0 two more than rank 1, and gets rewards by the whole model, by its share of it, and by
its share behind a pass that failed half-way on rank 0. `ahead` is, for each kind of pass and place in its order, how
many further blocks were gathered, or being gathered, when the block there began to compute.

The same again with all weights gathered once for each step, where the model also writes scores: as the whole model does
and as layers gathered token by token do. `exchanges` counts the exchanges of weights in each way.
"""

from __future__ import annotations

import json
import os
import traceback
from datetime import timedelta
from pathlib import Path

import tiny_vlm
import torch
import torch.distributed as dist
from PIL import Image
from temp_folder import temp_folder

from promptecho.config import load_experiment
from promptecho.errors import RewardError
from promptecho.plan.gathering import with_placement
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.inferscore import REWARD, InferScoreSection
from promptecho.rewards.inferscore.reward import InferScoreReward
from promptecho.rewards.make import BuiltReward
from promptecho.templates import read_template
from promptecho.train.data import TrainingPrompt
from promptecho.train.placement.layout import RankLayout
from promptecho.train.placement.local import load_reward_vlms
from promptecho.train.scoring import WeightedReward, score_images
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.model import Vlm
from promptecho.vlm.sharding import find_blocks, shard_vlm
from promptecho.vlm.turns import Turns

LIMIT = timedelta(seconds=30)
LABELS = ["A red circle.", "a blue square above it", "Two stars.", "three rings", "A cross."]


def rewards(vlm: Vlm, rank: int) -> list[list[float]]:
    """Log-probabilities of the labels of this rank's images, in batches of two."""
    mine = range(3) if rank == 0 else range(3, 5)
    images = [Image.new("RGB", (32, 32 + 8 * i), (40 * i, 90, 200)) for i in mine]
    found = label_log_probs(vlm, images, [LABELS[i] for i in mine], "Describe this image.", batch_size=2)
    return [row.log_probs.tolist() for row in found]


def written(vlm: Vlm, rank: int) -> list[list[str]]:
    """Scores that the model writes of this rank's images, and the replies that have none."""
    settings = InferScoreSection(max_new_tokens=6, temperature=1.0)
    template = read_template(REWARD.template_file(settings))
    reward = InferScoreReward(vlm, settings, template=template, batch_size=2, seed=3)
    mine = range(3) if rank == 0 else range(3, 5)
    images = [Image.new("RGB", (32, 32 + 8 * i), (40 * i, 90, 200)) for i in mine]
    found = reward.score(images, [LABELS[i] for i in mine], [f"p{i}" for i in mine])
    return [[str(one.reward), *one.failures] for one in found]


def watch_gathering(vlm: Vlm, blocks: list[torch.nn.Module]) -> set[tuple[str, int, int]]:
    """(kind of pass, place in its order, further blocks gathered or being gathered) of blocks that begin to compute."""
    seen: set[tuple[str, int, int]] = set()
    turns: Turns = vlm.in_step.__self__

    def note(block: torch.nn.Module, *_: object) -> None:
        if turns.kind in turns.order:
            place = turns.order[turns.kind].index(block)
            seen.add((turns.kind, place, len(turns.gathered) - 1 - place))

    for block in blocks:  # behind FSDP's own hook, before the block computes
        block.register_forward_pre_hook(note)
    return seen


def fails_half_way(vlm: Vlm, rank: int, block: torch.nn.Module) -> str:
    """Rank 0's pass ends in this block; rank 1's own passes must not notice."""

    def fail(*_: object) -> None:
        handle.remove()
        raise ValueError("half-way")

    handle = block.register_forward_pre_hook(fail) if rank == 0 else None
    try:
        with vlm.in_step():
            rewards(vlm, rank)
    except ValueError as error:
        return str(error)
    return ""


def fails_to_gather(vlm: Vlm, rank: int) -> str:
    """Rank 0 has no memory for one block; rank 1 must come to its end all the same."""
    turns: Turns = vlm.in_step.__self__
    with vlm.in_step():
        pass
    block = turns.blocks[2]

    def fail() -> None:
        del block.unshard
        raise torch.OutOfMemoryError("no memory")

    if rank == 0:
        block.unshard = fail
    try:
        with vlm.in_step():
            return "inside"
    except torch.OutOfMemoryError as error:
        return str(error)


def links_of_doubles(vlm: Vlm) -> int:
    """Links that are left for a kind of pass that comes by a block twice."""
    turns: Turns = vlm.in_step.__self__
    turns._link("image")
    turns.order["twice"] = [*turns.order["image"], turns.blocks[0]]
    turns._link("twice")
    return sum(len(block._get_fsdp_state()._states_to_forward_prefetch) for block in turns.blocks)


def decided_alone(folder: str, rank: int) -> bool:
    """Whether a VLM is gathered whole on this rank, when rank 0 alone has decided for it."""
    config = load_experiment(Path(__file__).parents[2] / "config" / "experiments" / "shapes.yaml")
    run = next(iter(config.runs))
    config = with_placement(config, run, mode="colocated", gather="phase" if rank == 0 else "layer")
    training = config.runs[run].model_copy(update={"reward_vlm": config.models.vlm.model_copy(update={"path": folder})})
    config = config.model_copy(update={"runs": {run: training}})
    (vlm,) = load_reward_vlms(config, run, torch.device("cpu"), RankLayout(rank, 2, 2))
    return vlm.in_step.__self__.whole


def facts(folder: str, rank: int, store: dist.Store) -> dict:
    vlm = load_vlm(folder)
    whole, wrote = rewards(vlm, rank), written(vlm, rank)
    sizes = [p.numel() for p in vlm.model.parameters()]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=LIMIT)
    blocks = find_blocks(vlm.model)  # by class names, which FSDP changes
    sharded = shard_vlm(vlm, dist.group.WORLD)
    seen = watch_gathering(sharded, blocks)
    with sharded.in_step():
        same = [rewards(sharded, rank) == whole]
    said = fails_half_way(sharded, rank, blocks[2])
    with sharded.in_step():
        same.append(rewards(sharded, rank) == whole)
    noted = len(sharded.model._get_fsdp_state()._comm_ctx.post_forward_order)
    tokens, layers = counted(sharded, rank)
    again = shard_vlm(load_vlm(folder), dist.group.WORLD, whole=True)
    lost = fails_to_gather(again, rank)
    with again.in_step():
        kept = [rewards(again, rank) == whole]
    kept.append(fails_half_way(again, rank, again.in_step.__self__.blocks[2]) == said)
    scores, phase = counted(again, rank)
    left = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in again.model.parameters())
    links = links_of_doubles(sharded)
    agreed = decided_alone(folder, rank)
    several = one_fails_of_two(sharded, again, rank)
    dist.barrier()
    return {
        "several": several, "lost": lost, "noted": noted, "links": links, "agreed": agreed,
        "same": same, "said": said, "ahead": sorted(seen), "kept": kept, "exchanges": [layers, phase],
        "written": [tokens == wrote, scores == wrote, len(tokens)], "left": left / sum(sizes),
    }  # fmt: skip


def one_fails_of_two(first: Vlm, second: Vlm, rank: int) -> str:
    """Rank 0's reward by the first of two VLMs fails; rank 1 gets its rewards by both all the same."""

    def fails(*_: object) -> list[float]:
        raise RewardError("of the first")

    mine = range(3) if rank == 0 else range(3, 5)
    images = [Image.new("RGB", (32, 32 + 8 * i), (40 * i, 90, 200)) for i in mine]
    prompts = [TrainingPrompt(f"p{i}", LABELS[i]) for i in mine]
    contexts = [RewardContext(vlm=vlm) for vlm in (first, second, first)]
    entries = [
        WeightedReward("echo", 1.0, "", context=context, reward=make_reward("echo", context)) for context in contexts
    ]
    if rank == 0:
        entries[0].reward = BuiltReward("echo", fails)
    try:
        scores = score_images(entries, images, prompts, [f"{i}.png" for i in mine], lambda n: None)
    except RewardError as error:
        return str(error)
    return f"{scores.rewards.isfinite().sum()} rewards"


def counted(vlm: Vlm, rank: int) -> tuple[list, int]:
    """What the model writes within one step, and how many exchanges of weights that takes."""
    turns, calls = vlm.in_step.__self__, []
    count = turns.count
    turns.count = lambda block: calls.append(block) or count(block)
    with vlm.in_step():
        found = written(vlm, rank)
    turns.count = count
    return found, len(calls)


def main() -> None:
    replies = [f'{{"score": {score}}}' for score in (1, 4, 8)]
    folder = str(tiny_vlm.build(temp_folder("tiny-vlm-"), context=1024, replies=replies))
    master = dist.TCPStore("127.0.0.1", 0, 2, True, timeout=LIMIT, wait_for_workers=False)
    ends = []
    for rank in range(2):
        ends.append(os.pipe())
        if os.fork() == 0:
            store = dist.TCPStore("127.0.0.1", master.port, 2, False, timeout=LIMIT, wait_for_workers=False)
            try:
                os.write(ends[rank][1], json.dumps(facts(folder, rank, store)).encode())
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(ends[rank][1])
    for end, _ in ends:
        with os.fdopen(end) as told:
            print(told.read(), flush=True)


if __name__ == "__main__":
    main()
