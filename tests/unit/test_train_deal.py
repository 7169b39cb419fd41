"""Dealing out the units of an optimizer step, as pure functions: any number of ranks, evenly or not."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.config.training import TrainingConfig
from promptecho.train.data import Batch, batches_of
from promptecho.train.deal import accumulation, deal, groups_per_pass, images_of_ranks, passes_of, timestep_groups
from promptecho.train.ranks import share_of_rank

RANKS = st.one_of(st.integers(1, 40), st.integers(3, 512))


@settings(max_examples=150, deadline=None)
@given(RANKS, st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([4, 12, 64, 128]), st.randoms())
def test_every_unit_has_one_rank_and_ranks_have_equally_many(ranks, size, groups, n_images, random):
    images = random.sample(range(1000), n_images)
    dealt = [passes_of(units, groups, size) for units in deal(images, groups, ranks, size)]
    assert len(dealt) == ranks
    units = [unit for passes in dealt for own in passes for unit in own]
    assert sorted(units) == sorted((image, group) for image in images for group in range(groups))
    assert all(1 <= len(own) <= size for passes in dealt for own in passes)
    shares = [sum(map(len, passes)) for passes in dealt]
    assert max(shares) - min(shares) <= 1
    most = max(map(len, dealt))
    training = TrainingConfig(
        batch_size=n_images, micro_batch_size=size, timesteps={"per_sample": groups}, prompts_per_iteration=n_images
    )
    assert most == accumulation(training, ranks) == -(-max(shares) // size)
    # The mean over all ranks' passes, weighted as in the update, is the mean over units.
    whole = len(units) / (ranks * most)
    weights = Counter({unit: 1 / whole / (ranks * most) for passes in dealt for own in passes for unit in own})
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) == max(weights.values())


@given(st.sampled_from([1, 2, 3, 5, 24, 32]), st.sampled_from([1, 2, 4, 5]), st.integers(1, 4), st.integers(1, 3))
def test_what_divides_evenly_is_dealt_as_whole_images(ranks, size, groups, chunks):
    """So that such runs keep their bytes: every n-th image, a pass for each micro-batch and group of timesteps."""
    images = list(range(100, 100 + ranks * size * chunks))
    for rank, units in enumerate(deal(images, groups, ranks, size)):
        passes, local = passes_of(units, groups, size, near=lambda own: own[::-1]), images[rank::ranks][::-1]
        expected = []
        for start in range(0, len(local), size):
            for group in range(groups):
                expected.append([(image, group) for image in local[start : start + size]])
        assert passes == expected


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 24, 40, 48, 256, 512]), st.booleans(), st.sampled_from(["pass", "iteration"]))
def test_ranks_hold_the_images_that_they_meet(ranks, per_timestep, redraw):
    timesteps = {"per_sample": 4, "redraw": redraw}
    training = TrainingConfig(per_timestep=per_timestep, timesteps=timesteps, micro_batch_size=4)
    held = images_of_ranks(256, training, 3, ranks)
    for pass_index in range(training.passes):
        groups = timestep_groups(training, pass_index)
        assert len(groups) == groups_per_pass(training)
        for batch in batches_of(256, training, 3, pass_index):
            for images, units in zip(held, deal(batch, len(groups), ranks, 4), strict=True):
                assert {image for image, _ in units} <= set(images)
    # No more than the units of a rank's steps need, and a few at the borders of its shares.
    most = 256 if ranks == 1 else training.passes * 2 * (-(-128 // ranks) + 2)
    assert max(map(len, held)) <= min(256, most)
    assert sum(held, []) == list(range(256)) or ranks > 1


def test_the_paper_s_batch_on_any_number_of_nodes():
    """512 units: 3, 5, 6 and 32 nodes of eight make no more passes than the units of their largest share need."""
    training = TrainingConfig(micro_batch_size=1, timesteps={"per_sample": 4})
    passes = {nodes: accumulation(training, 8 * nodes) for nodes in (1, 2, 3, 4, 5, 6, 8, 16, 32, 64)}
    assert passes == {1: 64, 2: 32, 3: 22, 4: 16, 5: 13, 6: 11, 8: 8, 16: 4, 32: 2, 64: 1}


def test_images_at_timesteps_of_their_own_are_those_of_single_takes():
    n, draws = 5, 4
    shape = (draws, n, 2, 3)
    noise, ema = torch.randn(shape), torch.randn(shape)
    batch = Batch(
        list("abcde"), torch.randn(shape[1:]), list(torch.randn(n, 7)), torch.randn(n), torch.rand(draws, n), noise,
        torch.randn(draws, n), None, ema, {"std": torch.rand(draws, n)}, torch.randn(7),
    )  # fmt: skip
    units = [(3, [1]), (3, [0]), (0, [2])]
    mixed = batch.at(units)
    for position, (image, times) in enumerate(units):
        one = batch.take([image], times)
        for key in ("t", "noise", "old_log_prob", "ema_velocity"):
            assert torch.equal(getattr(mixed, key)[:, position], getattr(one, key)[:, 0]), key
        assert torch.equal(mixed.stored["std"][:, position], one.stored["std"][:, 0])
        assert torch.equal(mixed.x0[position], one.x0[0]) and mixed.prompt_ids[position] == one.prompt_ids[0]
    alike, taken = batch.at([(4, [0, 2]), (1, [0, 2])]), batch.take([4, 1], [0, 2])
    assert torch.equal(alike.noise, taken.noise) and torch.equal(alike.t, taken.t) and alike.base_velocity is None
    nobody = batch.nobody(2)
    assert nobody.noise.shape == (2, 1, 2, 3) and not nobody.ema_velocity.any() and nobody.t.eq(1).all()
    assert nobody.stored["std"].tolist() == [[1], [1]]  # divided by
    # A rank without any image has such a pass, too.
    assert torch.equal(batch.take([]).nobody(2).cond[0], nobody.cond[0])


def test_shares_of_many_ranks_cover_everything():
    assert sum((share_of_rank(256, rank, 512) for rank in range(512)), []) == list(range(256))
