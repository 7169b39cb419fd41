"""The examples on docs/formulas.md are what the functions give, and the functions that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from scipy.special import stdtrit

from promptecho import awm, grpo, intervals, nft, statistics
from promptecho.benchmarks.geneval2 import rules as softtifa
from promptecho.config.training_parts import EmaSection
from promptecho.rewards.echo import reward as echo
from promptecho.rewards.inferscore import reward as inferscore
from promptecho.scores import ScoreItem
from promptecho.t2i import base
from promptecho.train import losses, scoring, selection, state, update
from promptecho.vlm.log_probs import TokenLogProbs

PAGE = Path(__file__).resolve().parents[2] / "docs/formulas.md"
EXAMPLES = [
    " ".join(text.split())
    for text in re.findall(r"^\*\*Example\*\*: (.+?)(?:\n\n|\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
]


def rounded(values, digits: int) -> str:
    return ", ".join(f"{float(value):.{digits}f}".rstrip("0").rstrip(".") for value in values)


def sentences() -> list[str]:
    log_probs = torch.tensor([-0.1, -0.5, -2.4])
    replies = [inferscore.ScoredReply("", score) for score in (7.0, 8.0, None)]
    rewards = torch.tensor([[-1.0, -2.0, -3.0, -6.0]])
    advantages = {
        name: awm.group_advantages(rewards, **options)[0]
        for name, options in {"none": {}, "clip": {"clip": 2.0}, "std": {"scale": "group_std"}}.items()
    }
    x0, noise, half = torch.zeros(1, 4), torch.full((1, 4), 0.25), torch.tensor([0.5])
    ghuber, plain = (
        awm.matching_log_prob(torch.zeros(1, 4), x0, noise, half, weighting=name) for name in ("ghuber", "t")
    )
    now, old = torch.tensor([[0.1]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    ratio = awm.policy_ratio(now, old)
    loss = awm.policy_loss(now, old, torch.tensor([2.0]), clip_range=0.05)
    kl, elbo = (
        awm.velocity_kl(torch.full((1, 4), 0.2), torch.zeros(1, 4), half, weighting=name)
        for name in ("uniform", "elbo")
    )
    good = nft.optimality(torch.tensor([1.0]), 5)
    std = grpo.step_std(half, torch.tensor([0.4], dtype=torch.float64), t_second=0.9, noise_level=0.7)
    step = grpo.step_mean(torch.ones(1, 1), torch.ones(1, 1), half, torch.tensor([0.4], dtype=torch.float64), std)
    scores = [0.9, 0.6, 0.3]
    ema, z = EmaSection(decay=0.9, warmup=True), intervals.normal_quantile(0.95)
    return [
        f"log-probabilities $-0.1$, $-0.5$, $-2.4$ give `TokenLogProbs.mean` = "
        f"{rounded([TokenLogProbs([], [], log_probs).mean], 4)}.",
        f"scores 7 and 8 and an unreadable reply give `mean_score` = {inferscore.mean_score(replies)}.",
        f"rewards $-1$, $-2$, $-3$, $-6$ of one prompt give `group_advantages` = {rounded(advantages['none'], 2)}; "
        f"with clip 2 they are {rounded(advantages['clip'], 2)}, and with `group_std` they are "
        f"{rounded(advantages['std'], 2)}.",
        f"$m = 0.0625$ at $t = 0.5$ gives `matching_log_prob` = {rounded(ghuber, 4)} with `ghuber` and "
        f"{rounded(plain, 5)} with `t`.",
        rf"$\ell_\theta - \ell_{{\mathrm{{old}}}} = 0.1$, $A = 2$ and $\epsilon = 0.05$ give `policy_ratio` = "
        f"{rounded(ratio, 5)} and `policy_loss` = {rounded([loss], 4)}.",
        f"velocities that differ by 0.2 everywhere give `velocity_kl` = {rounded([kl], 4)}, and at $t = 0.5$ with "
        f"`elbo` {rounded([elbo], 4)}.",
        rf"$A = 1$ and $A_{{\max}} = 5$ give `optimality` = {rounded(good, 4)}.",
        f"from $t = 0.5$ to $t' = 0.4$ with $a = 0.7$, `step_std` = {rounded(std, 5)}; from $x_t = 1$ with $v = 1$, "
        f"`step_mean` = {rounded(step.flatten(), 4)}.",
        f"`ema.decay` 0.9 with `warmup` is `EmaSection.decay_at` = {rounded([ema.decay_at(1)], 5)} after the first "
        f"step and {rounded([ema.decay_at(100)], 5)} after the 100th.",
        f"scores 0.9, 0.6 and 0.3 give `arithmetic_mean` = {rounded([softtifa.arithmetic_mean(scores)], 4)} and "
        f"`geometric_mean` = {rounded([softtifa.geometric_mean(scores)], 4)}.",
        f"30 of 100 give `wilson_interval` = {rounded(intervals.wilson_interval(30, 100), 4)}; 1 of 100 gives "
        f"{rounded(intervals.wilson_interval(1, 100), 4)}, and `modified_wilson` "
        f"{rounded(intervals.modified_wilson(0.01, 100, z), 4)}.",
        f"of 400 pairs 67 gain and 15 lose; `bonett_price` = "
        f"{rounded(intervals.bonett_price(67 / 400, 15 / 400, 400, z), 4)}.",
    ]


def test_examples_are_what_the_functions_give():
    assert sentences() == EXAMPLES


def test_images_that_belong_together_are_counted_as_the_page_says():
    """Three prompts with two images each."""
    values = {"a": (1.0, 1.0), "b": (1.0, 0.0), "c": (0.0, 0.0)}
    items = [
        ScoreItem(prompt_id=prompt, image_index=index, group="all", outcome=value, failed=False)
        for prompt, pair in values.items()
        for index, value in enumerate(pair)
    ]
    flat = [item.outcome for item in items]
    n_items, n_prompts, mean, b = 6, 3, 0.5, 2.0
    v_items = sum((x - mean) ** 2 for x in flat) / (n_items * (n_items - 1))
    v_prompts = n_prompts / (n_prompts - 1) * sum((sum(pair) - 2 * mean) ** 2 for pair in values.values()) / n_items**2
    s = mean * (1 - mean)
    found = min(max((v_prompts - v_items) / ((b - 1) * v_items), 0), 1)
    rho = (n_items * s * found + 0.5) / (n_items * s + 0.5)
    v, z = max((1 + (b - 1) * rho) * v_items, s / n_prompts**2), intervals.normal_quantile(0.95)
    n = s / v * (z / stdtrit(n_prompts - 1, 0.975)) ** 2
    estimate, _ = statistics.mean_of_group_means(items, ungrouped=True)
    assert (estimate.low, estimate.high) == pytest.approx(intervals.modified_wilson(mean, n, z), abs=1e-9)


def test_functions_that_the_page_names_are_there():
    text = PAGE.read_text(encoding="utf-8")
    named = set()
    for line in re.findall(r"Functions?: (.+?)(?:\n\n|\n- |\Z)", text, re.S):
        named |= {name for span in re.findall(r"`([^`]+)`", line) for name in re.findall(r"[A-Za-z_.]+", span)}
    named = {name for name in named if re.fullmatch(r"[A-Za-z_]+", name)} - {"per_timestep", "false", "uniform"}
    named -= {"train_guidance", "sampler_grid", "stratified_grid"}  # keys, and values of one
    places = (awm, intervals, statistics, echo, inferscore, softtifa, update, losses, nft, grpo, state)
    places = (*places, scoring, selection, base.T2iModel)
    assert len(named) > 12
    assert not [name for name in sorted(named) if not any(hasattr(place, name) for place in places)]
