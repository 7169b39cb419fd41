"""Which of a prompt's images the update trains on (`training.update_images_per_prompt`).

Max-variance down-sampling of PODS (Xu et al., arXiv 2504.13818): of the K images that were sampled and rewarded for a
prompt, those m whose advantages have the largest variance. It is always reached by some of the lowest and some of the
highest, so only m + 1 choices are compared. An image in the middle has an advantage near 0 and would add little to the
gradient, at the same price as any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist

from promptecho.train.data import Rollout
from promptecho.train.ranks import handed_over, share_of_rank


def most_varied(values: list[float], n: int) -> list[int]:
    """Positions, in increasing order, of the `n` of `values` with the largest variance.

    Equal values count in the order of their positions. Of choices that are equally good, the one with fewer low values
    is taken.
    """
    order = sorted(range(len(values)), key=lambda position: (values[position], position))
    best, found = -1.0, order
    for low in range(n + 1):
        chosen = order[:low] + order[len(order) - (n - low) :]
        mean = sum(values[position] for position in chosen) / n
        variance = sum((values[position] - mean) ** 2 for position in chosen) / n
        if variance > best:
            best, found = variance, chosen
    return sorted(found)


def chosen_images(advantages: torch.Tensor, per_prompt: int | None) -> list[int] | None:
    """Which of G * K images the update trains on, by their `advantages[G, K]`: `per_prompt` of each prompt, in
    increasing order; None, which means all, where `per_prompt` is None."""
    if per_prompt is None:
        return None
    k = advantages.shape[1]
    groups = enumerate(advantages.tolist())
    return [g * k + position for g, group in groups for position in most_varied(group, per_prompt)]


def narrowed(rollout: Rollout) -> Rollout:
    """Collective: the rollout of its chosen images alone, whose latents are dealt out anew, evenly over the ranks.

    The mean of a prompt's chosen advantages is subtracted from them, so that they sum to 0 again, as in PODS: else the
    update would move the policy away from all of the prompt's images, or towards them, whatever their rewards.
    """
    chosen = rollout.chosen
    if chosen is None:
        return rollout
    rank, ranks = dist.get_rank(), dist.get_world_size()
    shares = [share_of_rank(len(chosen), each, ranks) for each in range(ranks)]
    wanted = [[chosen[index] for index in share] for share in shares]
    advantages = rollout.advantages[chosen].view(len(rollout.prompts), -1)
    path = None if rollout.path is None else handed_over(rollout.path, rollout.share, rollout.total, wanted)
    return replace(
        rollout,
        share=shares[rank],
        latents=handed_over(rollout.latents, rollout.share, rollout.total, wanted),
        advantages=(advantages - advantages.mean(1, keepdim=True)).flatten(),
        numbers=[rollout.number_of(image) for image in chosen],
        chosen=None,
        path=path,
    )
