"""The AWM functions against their formulas, written again in plain numpy, and what their gradients do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from promptecho import awm

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)
scales = st.sampled_from([1e-4, 0.1, 1.0, 30.0])
WEIGHTINGS = ("ghuber", "uniform", "t", "t2", "huber")


def arrays(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Float32 values, as models give them; the formulas below compute with them in float64."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def times(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1e-3, 1.0, n).astype(np.float32)


def log_prob_formula(v, x0, noise, t, weighting, p):
    v, x0, noise, t = (np.asarray(x, np.float64) for x in (v, x0, noise, t))
    result = []
    for i in range(len(v)):
        m = np.mean((v[i] - (noise[i] - x0[i])) ** 2)
        result.append(
            {
                "uniform": -m,
                "t": -t[i] * m,
                "t2": -t[i] * t[i] * m,
                "huber": -(math.sqrt(m + 1e-10) - 1e-5) * t[i],
                "ghuber": -((m + 1e-10) ** p - 1e-10**p) * t[i] / p,
            }[weighting]
        )
    return np.array(result)


@given(seeds, sizes, scales, st.sampled_from(WEIGHTINGS), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_matching_log_prob_is_its_formula(seed, n, scale, weighting, power):
    x0, noise = arrays(seed, n, 2, 3, 3), arrays(seed + 1, n, 2, 3, 3)
    velocity = noise - x0 + arrays(seed + 2, n, 2, 3, 3, scale=scale)
    t = times(seed, n)
    tensors = map(torch.from_numpy, (velocity, x0, noise, t))
    found = awm.matching_log_prob(*tensors, weighting=weighting, power=power)
    assert found.dtype == torch.float64 and found.shape == (n,)
    np.testing.assert_allclose(found, log_prob_formula(velocity, x0, noise, t, weighting, power), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_perfect_match_has_log_prob_zero_and_a_finite_gradient(weighting):
    x0, noise = torch.randn(2, 4), torch.randn(2, 4)
    velocity = (noise.double() - x0.double()).requires_grad_()
    log_prob = awm.matching_log_prob(velocity, x0, noise, torch.tensor([0.3, 1.0]), weighting=weighting)
    assert log_prob.abs().max() < 1e-12
    log_prob.sum().backward()
    assert velocity.grad.isfinite().all()


def test_defaults_are_ghuber_with_a_power_of_a_quarter():
    v, x0, noise, t = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.2, 0.9])
    expected = awm.matching_log_prob(v, x0, noise, t, weighting="ghuber", power=0.25)
    assert torch.equal(awm.matching_log_prob(v, x0, noise, t), expected)


@given(seeds, st.integers(1, 5), st.integers(2, 8), st.sampled_from(["none", "group_std", "global_std", "reward_std"]),
       st.sampled_from([0.05, 1.0, 5.0, math.inf]))  # fmt: skip
def test_group_advantages_are_their_formula(seed, groups, size, scale, clip):
    rewards = np.random.default_rng(seed).normal(-1.5, 0.4, (groups, size))
    centred = rewards - rewards.mean(1)[:, None]
    if scale == "group_std":
        centred = np.stack([row / (math.sqrt((row**2).mean()) + 1e-6) for row in centred])
    if scale == "global_std":
        centred = centred / (math.sqrt((centred**2).mean()) + 1e-6)
    if scale == "reward_std":
        centred = centred / (math.sqrt(((rewards - rewards.mean()) ** 2).mean()) + 1e-4)
    found = awm.group_advantages(torch.from_numpy(rewards), scale=scale, clip=clip)
    np.testing.assert_allclose(found, np.minimum(np.maximum(centred, -clip), clip), rtol=1e-9, atol=1e-12)
    assert found.abs().max() <= clip
    if clip == math.inf:
        np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)
    nobody = torch.zeros(groups, size, dtype=torch.bool)  # the way of groups with missing rewards gives the same
    masked = awm._advantages_of_some(torch.from_numpy(rewards), ~nobody, scale).clamp(-clip, clip)
    np.testing.assert_allclose(masked, found, rtol=1e-9, atol=1e-12)
    smaller = awm.group_advantages(torch.from_numpy(rewards), scale=scale, clip=clip, factor=0.2)
    np.testing.assert_allclose(smaller, 0.2 * found, rtol=1e-12)


def test_a_reward_that_is_missing_has_no_part_in_the_deviation_of_all():
    rewards = torch.tensor([[1.0, 3.0, math.nan], [0.0, 4.0, 2.0]])
    found = awm.group_advantages(rewards, scale="reward_std", missing=rewards.isnan())
    std = np.std([1.0, 3.0, 0.0, 4.0, 2.0]) + 1e-4
    np.testing.assert_allclose(found, np.array([[-1, 1, 0], [-2, 2, 0]]) / std, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "group_std", "global_std", "reward_std"])
def test_equal_rewards_give_no_advantage(scale):
    rewards = torch.full((3, 4), -1.2345678)
    assert awm.group_advantages(rewards, scale=scale).abs().max() < 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_located(bad):
    rewards = torch.zeros(2, 3)
    rewards[1, 2] = bad
    with pytest.raises(ValueError, match=r"\[\[1, 2\]\]"):
        awm.group_advantages(rewards)


def loss_formula(new, old, advantages, clip_range, per_timestep):
    if not per_timestep:
        new, old = new.mean(0)[None], old.mean(0)[None]
    terms = []
    for row_new, row_old in zip(new, old, strict=True):
        for a, b, advantage in zip(row_new, row_old, advantages, strict=True):
            ratio = math.exp(a - b)
            clipped = min(max(ratio, 1 - clip_range), 1 + clip_range)
            terms.append(max(-advantage * ratio, -advantage * clipped))
    return sum(terms) / len(terms)


@given(seeds, st.integers(1, 4), sizes, st.sampled_from([1e-3, 0.2]), st.booleans(), st.sampled_from([1e-3, 0.3]))
def test_policy_loss_is_its_formula(seed, steps, batch, clip_range, per_timestep, spread):
    old, change = arrays(seed, steps, batch).astype(float), arrays(seed + 1, steps, batch, scale=spread).astype(float)
    advantages = arrays(seed + 2, batch).astype(float)
    options = {"clip_range": clip_range, "per_timestep": per_timestep}
    new = torch.from_numpy(old + change)
    found = awm.policy_loss(new, torch.from_numpy(old), torch.from_numpy(advantages), **options)
    expected = loss_formula(old + change, old, advantages, clip_range, per_timestep)
    assert found.ndim == 0 and float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    ratios = np.exp(change if per_timestep else (old + change).mean(0) - old.mean(0))
    share = float(awm.clip_fraction(new, torch.from_numpy(old), **options))
    assert share == pytest.approx((np.abs(ratios - 1) > clip_range).mean())


@given(seeds, sizes, st.sampled_from(["uniform", "elbo"]))
def test_velocity_kl_is_its_formula(seed, n, weighting):
    a, b, t = arrays(seed, n, 2, 3), arrays(seed + 1, n, 2, 3), times(seed, n)
    t[0] = 1.0  # where the elbo's clamp acts
    expected = []
    for i in range(n):
        value = np.mean((a[i].astype(float) - b[i]) ** 2)
        if weighting == "elbo":
            time = float(t[i])
            s = 0.7 * math.sqrt(time / (1 - min(time, 0.99)))
            value /= 2 * s * s
        expected.append(value)
    found = awm.velocity_kl(*map(torch.from_numpy, (a, b, t)), weighting=weighting)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-6)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seeds, st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.3, 1.0, 3.0, 6.0]),
       st.sampled_from([-0.5, 0.0, 1.0]), st.sampled_from([0.5, 1.0]))  # fmt: skip
def test_stratified_timesteps_fall_one_into_each_stratum(seed, n, strata, shift, mean, std):
    t = awm.sample_timesteps(
        n, strata, generator(seed), distribution="stratified_logit_normal", shift=shift, mean=mean, std=std
    )
    assert t.shape == (strata, n) and ((t > 0) & (t <= 1)).all()
    # Back through shift and logit-normal, row i has its quantile in [i / strata, (i + 1) / strata].
    t = t.double().numpy()
    unshifted = t / (shift - (shift - 1) * t)
    with np.errstate(divide="ignore"):
        quantile = norm.cdf((np.log(unshifted) - np.log1p(-unshifted) - mean) / std)
    row = np.arange(strata)[:, None]
    assert (quantile >= row / strata - 2e-3).all() and (quantile <= (row + 1) / strata + 2e-3).all()


@given(seeds, st.integers(1, 20), st.integers(1, 6))
def test_uniform_timesteps_lie_in_their_range(seed, n, per_sample):
    t = awm.sample_timesteps(n, per_sample, generator(seed), distribution="uniform")
    assert t.shape == (per_sample, n) and ((t > 0) & (t <= 1)).all()


@given(seeds, st.integers(1, 12), st.integers(1, 8), st.integers(0, 9))
def test_strata_of_the_grid_give_one_timestep_each(seed, n, per_sample, more):
    grid = torch.linspace(1, 0, per_sample + more + 1)[:-1]
    t = awm.sample_timesteps(n, per_sample, generator(seed), distribution="stratified_grid", grid=grid)
    bounds = np.floor(np.linspace(0, len(grid), per_sample + 1) + 1e-9).astype(int)  # as AWM cuts them
    for row, low, high in zip(t, bounds, bounds[1:], strict=False):
        assert set(row.tolist()) <= set(grid[low:high].tolist())
    many = awm.sample_timesteps(400, per_sample, generator(seed), distribution="stratified_grid", grid=grid)
    assert set(many.flatten().tolist()) == set(grid.tolist())  # none of them is never drawn


@given(seeds, st.integers(1, 20), st.integers(1, 10), st.integers(0, 5))
def test_grid_timesteps_are_the_samplers_own_without_replacement(seed, n, per_sample, more):
    grid = torch.linspace(1, 0, per_sample + more + 1)[:-1]
    t = awm.sample_timesteps(n, per_sample, generator(seed), distribution="sampler_grid", grid=grid)
    assert t.shape == (per_sample, n) and torch.isin(t, grid).all()
    assert all(len(set(column.tolist())) == per_sample for column in t.T)


def test_timesteps_are_a_function_of_the_generator():
    for name in ("stratified_logit_normal", "uniform", "sampler_grid", "stratified_grid"):
        grid = torch.linspace(1, 0.1, 9)
        a, b, c = (awm.sample_timesteps(5, 4, generator(s), distribution=name, grid=grid) for s in (3, 3, 4))
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_unknown_names_list_the_known():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="ghuber, uniform, t, t2 or huber"):
        awm.matching_log_prob(x, x, x, torch.ones(1), weighting="l2")
    with pytest.raises(ValueError, match="none, group_std, global_std or reward_std"):
        awm.group_advantages(x, scale="std")
    with pytest.raises(ValueError, match="uniform or elbo"):
        awm.velocity_kl(x, x, weighting="t")
    with pytest.raises(ValueError, match="needs the timesteps"):
        awm.velocity_kl(x, x, weighting="elbo")
    with pytest.raises(ValueError, match="stratified_logit_normal, uniform, sampler_grid"):
        awm.sample_timesteps(1, 1, generator(0), distribution="beta")
    for grid in (None, torch.linspace(1, 0.5, 3)):
        with pytest.raises(ValueError, match="at least 4 timesteps"):
            awm.sample_timesteps(1, 4, generator(0), distribution="sampler_grid", grid=grid)


@settings(max_examples=25)
@given(seeds, st.sampled_from(WEIGHTINGS), st.booleans())
def test_a_gradient_step_raises_the_log_prob_of_good_images_and_lowers_that_of_bad_ones(seed, weighting, per_timestep):
    x0, noise = torch.from_numpy(arrays(seed, 2, 6)), torch.from_numpy(arrays(seed + 1, 2, 6))
    t = torch.tensor([[0.4, 0.4], [0.8, 0.8]])
    velocity = torch.from_numpy(arrays(seed + 2, 2, 2, 6)).double().requires_grad_()

    def log_prob(v: torch.Tensor) -> torch.Tensor:
        return torch.stack([awm.matching_log_prob(v[k], x0, noise, t[k], weighting=weighting) for k in range(2)])

    old = log_prob(velocity).detach()
    advantages = torch.tensor([1.0, -1.0], dtype=torch.float64)
    awm.policy_loss(log_prob(velocity), old, advantages, clip_range=0.2, per_timestep=per_timestep).backward()
    with torch.no_grad():
        change = (log_prob(velocity - 1e-3 * velocity.grad) - old).mean(0)
    assert change[0] > 0 > change[1]


def test_beyond_the_clip_range_only_the_wrong_direction_has_a_gradient():
    old = torch.zeros(1, 4, dtype=torch.float64)
    new = torch.tensor([[0.5, -0.5, 0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    awm.policy_loss(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), clip_range=0.2).backward()
    assert (new.grad[0] != 0).tolist() == [False, True, True, False]


def test_interpolation_ends_at_image_and_noise():
    x0, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    mixed = awm.interpolate(x0, noise, torch.tensor([0.0, 1.0, 0.25]))
    torch.testing.assert_close(mixed, torch.stack([x0[0], noise[1], 0.75 * x0[2] + 0.25 * noise[2]]))
