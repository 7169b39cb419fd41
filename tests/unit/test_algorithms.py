"""The update's other algorithms: their functions against the published code, and what they do in a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import ranks, run
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times, same_bytes
from tiny_policy import adapted, batch_of

from promptecho import awm, grpo, nft
from promptecho.config.training import TrainingConfig
from promptecho.config.training_checks import training_problems
from promptecho.t2i.lora import trained_parameters
from promptecho.train.loop import train_segment
from promptecho.train.losses import log_prob_of, loss_of, velocity
from promptecho.train.update import steps_taken

GOLDEN = json.loads(Path(__file__).with_name("algorithms_golden.json").read_text())
GRID = {"distribution": "sampler_grid"}
seeds = st.integers(0, 2**32 - 1)


def arrays(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def sampler_times(steps: int, shift: float) -> torch.Tensor:
    t = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * t / (1 + (shift - 1) * t), torch.zeros(1)])


@pytest.mark.parametrize("case", GOLDEN["grpo"]["cases"], ids=lambda case: f"level-{case['noise_level']}")
def test_steps_of_the_stochastic_sampler_are_those_of_the_published_code(case):
    steps, seed = case["steps"], 10 * case["seed"]
    times = sampler_times(steps, case["shift"])
    t, t_next = times[:-1], times[1:]
    v, x = arrays(seed, steps, 2, 3, 4), arrays(seed + 1, steps, 2, 3, 4)
    x_next = x + v * (t_next - t).view(-1, 1, 1, 1) + 0.1 * arrays(seed + 2, steps, 2, 3, 4)
    std = grpo.step_std(t, t_next, t_second=float(t[1]), noise_level=case["noise_level"])
    mean = grpo.step_mean(x, v, t, t_next, std)
    near = {"rtol": 2e-5, "atol": 1e-6}  # the published code computes in float32
    np.testing.assert_allclose(std, case["std"], **near)
    np.testing.assert_allclose(mean.flatten(1).mean(1), case["mean_of_means"], **near)
    np.testing.assert_allclose(mean.square().flatten(1).mean(1), case["mean_of_squares"], **near)
    np.testing.assert_allclose(grpo.step_log_prob(x_next, mean, std), case["log_prob"], **near)


@pytest.mark.parametrize("case", GOLDEN["nft"]["cases"], ids=lambda case: f"beta-{case['beta']}")
def test_nft_loss_and_gradient_are_those_of_the_published_code(case):
    bound, seed = case["adv_clip_max"], 100 + 10 * case["seed"]
    advantages = torch.tensor(case["advantages"])
    v, old, x0, noise = (arrays(seed + k, len(advantages), 2, 3, 4) for k in range(4))
    good = nft.optimality(advantages, bound)
    np.testing.assert_allclose(good, case["r"], rtol=1e-6)
    t = torch.linspace(0.05, 1, len(advantages))
    loss = nft.nft_loss(v.requires_grad_(), old, x0, noise, t, good, beta=case["beta"])
    np.testing.assert_allclose(loss.detach(), case["loss"], rtol=1e-5)
    (gradient,) = torch.autograd.grad(bound * loss.mean(), v)
    np.testing.assert_allclose(gradient.flatten(1).norm(dim=1), case["gradient_norms"], rtol=1e-4)


@given(seeds, st.integers(2, 12), st.floats(0.5, 5))
def test_without_noise_a_step_is_the_odes(seed, steps, shift):
    times = sampler_times(steps, shift)
    x, v = arrays(seed, steps, 3), arrays(seed + 1, steps, 3)
    mean = grpo.step_mean(x, v, times[:-1], times[1:], torch.zeros(steps))
    dt = times[1:].double() - times[:-1].double()
    np.testing.assert_allclose(mean, x.double() + dt[:, None] * v.double(), atol=1e-12)


@given(seeds, st.sampled_from([0.1, 0.5, 1.0]))
def test_nft_moves_towards_good_images_and_away_from_bad_ones(seed, beta):
    """At the policy that sampled, where the gradient of a wholly good image is minus that of a wholly bad one."""
    x0, noise, old = (arrays(seed + k, 4, 2, 3) for k in range(3))
    t, gradients = torch.rand(4, generator=torch.Generator().manual_seed(seed)).clamp(min=0.01), []
    for good in (1.0, 0.0, 0.5):
        v = old.clone().requires_grad_()
        nft.nft_loss(v, old, x0, noise, t, torch.full((4,), good), beta=beta).sum().backward()
        gradients.append(v.grad)
    torch.testing.assert_close(gradients[0], -gradients[1])
    assert gradients[2].abs().max() <= 1e-6 * gradients[0].abs().max()
    towards = ((noise - x0 - old) * -gradients[0]).sum()
    assert towards > 0


def test_steps_are_taken_from_the_way_that_images_came():
    grid, path = torch.tensor([1.0, 0.8, 0.3]), torch.arange(2 * 4 * 5.0).view(2, 4, 5)
    t = torch.tensor([[0.3, 1.0], [1.0, 0.8]])
    steps = steps_taken(path, t, grid, 0.7)
    assert steps["t_next"].tolist() == [
        [0, torch.tensor(0.8).item()],
        [torch.tensor(0.8).item(), torch.tensor(0.3).item()],
    ]
    assert torch.equal(steps["x_t"][0, 0], path[0, 2]) and torch.equal(steps["x_next"][0, 0], path[0, 3])
    assert torch.equal(steps["x_t"][1, 1], path[1, 1]) and torch.equal(steps["x_next"][1, 1], path[1, 2])
    assert bool((steps["std"] > 0).all()) and bool(steps["std"].isfinite().all())


def stored_for(algorithm: str, batch) -> dict[str, torch.Tensor]:
    if algorithm == "nft":
        return {"old_velocity": batch.noise - batch.x0 + 0.1}
    t_next = batch.t - 0.1
    std = grpo.step_std(batch.t, t_next, t_second=0.9, noise_level=0.7)
    return {"x_t": batch.x0 + batch.noise, "x_next": batch.noise, "t_next": t_next, "std": std}


@pytest.mark.parametrize("algorithm", ["nft", "grpo"])
def test_loss_of_a_batch_is_that_of_its_images_and_nobody_adds_nothing(algorithm):
    training = TrainingConfig(algorithm=algorithm, timesteps=GRID, lora={"rank": 4, "alpha": 8}, kl_ema={"weight": 0})
    family = adapted("zimage", "float32")
    batch = batch_of(family, 4)
    batch.stored, batch.spare, batch.base_velocity = stored_for(algorithm, batch), batch.cond[0], None
    loss, metrics = loss_of(family, batch, training)
    single = [loss_of(family, batch.take([image]), training)[0] for image in range(4)]
    torch.testing.assert_close(loss, torch.stack(single).mean(), rtol=1e-5, atol=1e-6)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in trained_parameters(family.transformer).values()]
    assert any(bool(gradient.abs().max() > 0) for gradient in gradients)
    (0 * loss_of(family, batch.nobody(1), training)[0]).backward()
    after = [parameter.grad for parameter in trained_parameters(family.transformer).values()]
    assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    assert all(bool(value.isfinite()) for value in metrics.values())
    expected = (
        {"policy_loss", "old_deviation"} if algorithm == "nft" else {"policy_loss", "ratio_mean", "clip_fraction"}
    )
    assert set(metrics) == expected


def test_the_ratio_of_grpo_is_one_for_the_policy_that_sampled():
    training = TrainingConfig(algorithm="grpo", timesteps=GRID, kl_ema={"weight": 0})
    family = adapted("zimage", "float32")
    batch = batch_of(family)
    batch.base_velocity, batch.stored = None, stored_for("grpo", batch)
    with torch.no_grad():
        v = velocity(family, batch.stored["x_t"][0], batch.t[0], batch.cond, training)
        stored = {name: value[0] for name, value in batch.stored.items()}
        batch.old_log_prob = log_prob_of(v, batch.x0, batch.noise[0], batch.t[0], stored, training)[None]
        _, metrics = loss_of(family, batch, training)
    assert metrics["ratio_mean"] == pytest.approx(1) and metrics["clip_fraction"] == 0


def test_keys_that_an_algorithm_needs():
    def problems(**keys) -> list[str]:
        return [key for key, _ in training_problems(TrainingConfig(**keys))]

    assert problems(algorithm="nft", advantage={"clip": None}) == ["advantage.clip"]
    assert problems(algorithm="grpo") == ["timesteps.distribution"]
    one_step = {"num_inference_steps": 1}
    assert problems(algorithm="grpo", timesteps={"per_sample": 1, **GRID}, sampling=one_step) == [
        "sampling.num_inference_steps"
    ]
    assert not problems(algorithm="grpo", timesteps=GRID) and not problems(algorithm="nft")


TRAININGS = {
    "nft": {"algorithm": "nft", "sampling": {"policy": "ema"}, "kl_ema": {"weight": 0, "decay": 0.5}},
    "grpo": {"algorithm": "grpo", "timesteps": {**GRID, "per_sample": 2}, "clip_range": 1e-3, "micro_batch_size": 4},
}


@pytest.mark.parametrize("algorithm", TRAININGS)
def test_a_training_ends_in_the_same_bits_however_it_is_cut_and_dealt(tmp_path, train_in_process, algorithm):
    """In one segment or two, with fewer images in the update than were sampled; and close by two processes."""
    experiment = Experiment(tmp_path)
    kept = {"update_images_per_prompt": 2, "batch_size": 8, "prompts_per_iteration": 4}
    config = experiment.config("exp", iterations=2, checkpoints=[1, 2], **kept, **TRAININGS[algorithm])
    assert train_segment(experiment.segment("one", config, 2))
    assert train_segment(experiment.segment("two", config, 1))
    assert train_segment(experiment.segment("two", config, 2, resume=tmp_path / "two" / "1"))
    whole = tmp_path / "one" / "2"
    assert same_bytes(tmp_path / "two" / "2", whole) == []
    rows = metrics_without_times(whole)
    assert rows[-1].get("ratio_mean", 1) == pytest.approx(1, abs=0.5) and ("ratio_mean" in rows[-1]) == (
        algorithm == "grpo"
    )
    run(experiment.train(config, 2, "ranks"), ranks(2))
    name = "adapter/adapter_model.safetensors"
    for key, value in load_file(whole / name).items():
        torch.testing.assert_close(load_file(tmp_path / "ranks" / "2" / name)[key], value, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("algorithm", ["awm", "nft", "grpo"])
def test_it_climbs_a_reward(algorithm):
    """A policy that makes points around m, and a reward that asks for another place; AWM beside the others."""
    generator, target = torch.Generator().manual_seed(0), torch.tensor([1.0, -0.5, 0.25, 0.0])
    m = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([m], lr=0.02)
    times = sampler_times(8, 3.0)
    grid, later = times[:-1], times[1:]

    def policy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Velocity towards points around m with standard deviation 0.3."""
        spread = (1 - t) ** 2 * 0.09 + t**2
        return (x - (1 - t) * m) * (t - (1 - t) * 0.09) / spread - m

    def draw(n: int) -> torch.Tensor:  # [n, 9, 4]: what is passed through
        path = [torch.randn(n, 4, generator=generator)]
        for t, t_next in zip(grid, later, strict=True):
            now, then = t.expand(n), t_next.expand(n)
            level = 0.7 if algorithm == "grpo" else 0.0
            std = grpo.step_std(now, then, t_second=float(grid[1]), noise_level=level)
            mean = grpo.step_mean(path[-1], policy(path[-1], t), now, then, std)
            path.append((mean + std[:, None] * torch.randn(n, 4, generator=generator)).float())
        return torch.stack(path, 1)

    def reward(x0: torch.Tensor) -> torch.Tensor:
        return -(x0 - target).square().sum(1)

    with torch.no_grad():
        before = reward(draw(512)[:, -1]).mean()
    for _ in range(80):
        with torch.no_grad():
            path = draw(64)
            x0 = path[:, -1]
            advantages = awm.group_advantages(reward(x0)[None], scale="group_std")[0]
            noise, step = torch.randn(64, 4, generator=generator), torch.randint(8, (64,), generator=generator)
            t, t_next = grid[step], later[step]
            x_t = path[torch.arange(64), step] if algorithm == "grpo" else awm.interpolate(x0, noise, t)
        v = policy(x_t, t[:, None])
        if algorithm == "nft":
            loss = nft.nft_loss(v, v.detach(), x0, noise, t, nft.optimality(advantages, 5.0), beta=1.0).mean()
        else:
            if algorithm == "grpo":
                std = grpo.step_std(t, t_next, t_second=float(grid[1]), noise_level=0.7)
                mean = grpo.step_mean(x_t, v, t, t_next, std)
                log_prob = grpo.step_log_prob(path[torch.arange(64), step + 1], mean, std)[None]
            else:
                log_prob = awm.matching_log_prob(v, x0, noise, t)[None]
            loss = awm.policy_loss(log_prob, log_prob.detach(), advantages, clip_range=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = reward(draw(512)[:, -1]).mean()
    assert (m - target).norm() < 0.5 * target.norm(), m
    assert after > before + 0.5, (before, after)
