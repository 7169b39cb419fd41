"""Images are scored while others are sampled: the same rewards, errors at the end, and never without room."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import replace

import pytest
import tiny_t2i
import torch
from tiny_experiment import Experiment, metrics_without_times
from tiny_vlm import image, shared_folder

from promptecho.config.compute import ComputeSection
from promptecho.errors import RewardError
from promptecho.rewards.base import RewardContext
from promptecho.rewards.make import BuiltReward, make_reward
from promptecho.t2i.zimage.model import ZImage
from promptecho.train.data import TrainingPrompt
from promptecho.train.loop import train_segment
from promptecho.train.placement.local import LocalRewarder
from promptecho.train.placement.overlapped import OverlappedRewarder, fits
from promptecho.train.scoring import NotFiniteRewardError, RolloutScores, WeightedReward
from promptecho.train.setup import overlaps
from promptecho.train.stop import StopCheck
from promptecho.vlm import load_vlm

CPU = torch.device("cpu")
PROMPTS = [TrainingPrompt(str(i), text) for i, text in enumerate(["A red circle.", "Three blue squares."] * 3)]


def rewarder(function) -> OverlappedRewarder:
    """Scores by `function(images, prompts, prompt_ids)`."""
    return OverlappedRewarder(
        [WeightedReward("echo", 1.0, "", reward=BuiltReward("echo", function))], StopCheck(None), CPU
    )


def submit(target, start: int, end: int) -> None:
    target.submit([image(i) for i in range(start, end)], PROMPTS[start:end], [f"image {i}" for i in range(start, end)])


def test_rewards_are_those_of_scoring_at_the_end():
    vlm = load_vlm(shared_folder())
    entry = WeightedReward("echo", 1.0, "", reward=make_reward("echo", RewardContext(vlm=vlm, batch_size=4)))
    beside, behind = (OverlappedRewarder([entry], StopCheck(None), CPU) for _ in range(2))
    behind.has_room = False
    found, steps = [], []
    for target in (LocalRewarder([entry], StopCheck(None)), beside, behind):
        submit(target, 0, 4)
        submit(target, 4, 6)
        found.append(target.collect(steps.append).rewards)
        target.close(0)
    assert found[0].shape == (1, 6) and steps == [1, 1, 2, 1, 2]
    assert torch.equal(found[1], found[2])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)


def test_scoring_begins_before_all_images_are_there():
    begun = threading.Event()

    def reward(images, prompts, prompt_ids):
        begun.set()
        return [float(prompt_id) for prompt_id in prompt_ids]

    target = rewarder(reward)
    submit(target, 0, 2)
    assert begun.wait(30)  # nothing was asked for yet
    submit(target, 2, 6)
    assert target.collect(lambda _: None).rewards.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    assert target.collect(lambda _: None).rewards.shape == (1, 0)  # each image once


def test_an_error_in_the_thread_is_raised_where_rewards_are_collected():
    target = rewarder(lambda images, prompts, prompt_ids: [float("nan") if i == "3" else 1.0 for i in prompt_ids])
    submit(target, 0, 2)
    submit(target, 2, 4)
    with pytest.raises(NotFiniteRewardError, match="prompt 3, image 3") as caught:
        target.collect(lambda _: None)
    assert caught.value.image.tobytes() == image(3).tobytes()

    def fails(images, prompts, prompt_ids):
        raise RewardError("no such thing")

    target = rewarder(fails)
    submit(target, 0, 2)
    with pytest.raises(RewardError, match="no such thing"):
        target.collect(lambda _: None)


def test_a_shortage_of_memory_beside_the_sampler_is_scored_again_after_it(capsys):
    main, calls = threading.get_ident(), []

    def reward(images, prompts, prompt_ids):
        calls.append(threading.get_ident() == main)
        if not calls[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [float(prompt_id) for prompt_id in prompt_ids]

    target = rewarder(reward)
    for _ in range(2):
        submit(target, 0, 2)
        assert target.collect(lambda _: None).rewards.tolist() == [[0.0, 1.0]]
    assert calls == [False, True, True]
    assert capsys.readouterr().err.count("rewards ran out of memory beside the sampler") == 1


def test_after_a_shortage_one_pass_runs_at_a_time_and_the_failed_one_holds_nothing():
    class Activations:
        pass

    running, most, held, kept = [], [], [], []
    main = threading.get_ident()

    def reward(images, prompts, prompt_ids):
        running.append(prompt_ids)
        most.append(len(running))
        try:
            if threading.get_ident() != main and prompt_ids == ["0"]:
                activations = Activations()
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if threading.get_ident() == main:
                kept.append(held[0]() is not None)
            time.sleep(0.05)
            return [float(prompt_id) for prompt_id in prompt_ids]
        finally:
            running.remove(prompt_ids)

    target = rewarder(reward)
    for index in range(4):
        submit(target, index, index + 1)
    assert target.collect(lambda _: None).rewards.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert max(most) == 1 and not any(kept) and kept


def test_an_error_leaves_no_lot_behind_it_to_be_scored():
    scored = []

    def reward(images, prompts, prompt_ids):
        scored.append(prompt_ids)
        time.sleep(0.2)
        raise RewardError("no such thing")

    target = rewarder(reward)
    for index in range(4):
        submit(target, index, index + 1)
    with pytest.raises(RewardError, match="no such thing"):
        target.collect(lambda _: None)
    target.pool.shutdown()
    assert len(scored) <= 2  # the one behind it may have begun


def test_a_request_to_stop_is_looked_for_while_the_thread_works():
    stopped = StopCheck(None)
    target = rewarder(lambda *_: [])
    target.stop = stopped
    target.lots = [(([], [], []), Future())]  # never done
    stopped.signalled = True
    with stopped.listening():
        target.collect(lambda _: None)
        raise AssertionError("goes on although it was asked to stop")
    assert stopped.heard


def test_both_must_fit_with_a_margin():
    assert fits(40, 20, 80) and fits(56, 20, 80) and not fits(57, 20, 80)


def test_who_overlaps():
    vlm, gpu = load_vlm(shared_folder()), torch.device("cuda")

    def entry_of(model):
        return WeightedReward("echo", 1.0, "", context=RewardContext(vlm=model))

    sharded = replace(vlm, placed=gpu)
    found = {}
    for mode in ("auto", "on", "off"):
        for deterministic in (False, True):
            compute = ComputeSection(overlap=mode, deterministic=deterministic)
            places = ((vlm, CPU), (vlm, gpu), (None, gpu), (sharded, gpu))
            found[mode, deterministic] = [overlaps(compute, [entry_of(model)], device) for model, device in places]
    assert ComputeSection().overlap == "auto"
    assert found["auto", False] == [False, True, True, False] and not any(found["auto", True])
    assert found["on", False] == found["on", True] == [True, True, True, False]
    assert not any(found["off", False] + found["off", True])


def test_an_error_while_images_are_made_leaves_no_lot_to_be_scored(tmp_path, train_in_process, monkeypatch):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())
    config = experiment.config(
        sections={"compute": {"overlap": "on"}}, iterations=1, checkpoints=[1], sampling={"batch_size": 2}
    )
    ended, scored, pools, decode = threading.Event(), [], [], ZImage.decode

    def held(self, lot):
        scored.append(lot)
        pools.append(self.pool)
        ended.wait(60)
        return RolloutScores.none(self.rewards)

    def fails(self, latents, made=[]):  # noqa: B006
        made.append(len(latents))
        if len(made) == 4:
            raise ValueError("the last batch")
        return decode(self, latents)

    monkeypatch.setattr(OverlappedRewarder, "_score", held)
    monkeypatch.setattr(ZImage, "decode", fails)
    with pytest.raises(ValueError, match="the last batch"):
        train_segment(experiment.segment("fails", config, 1))
    ended.set()
    pools[0].shutdown()  # as at the end of the process
    assert len(scored) == 1  # of three


def test_a_training_with_overlap_goes_as_one_without(tmp_path, train_in_process):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())
    rows, options = {}, {"iterations": 1, "checkpoints": [1], "passes": 1, "sampling": {"batch_size": 2}}
    for mode in ("off", "on"):
        config = experiment.config(mode, sections={"compute": {"overlap": mode}}, **options)
        assert train_segment(experiment.segment(mode, config, 1))
        rows[mode] = metrics_without_times(experiment.folder / mode / "1")
    for one, other in zip(rows["off"], rows["on"], strict=True):
        assert one["reward_mean"] == pytest.approx(other["reward_mean"], abs=1e-5)
        assert one["reward_group_std"] == pytest.approx(other["reward_group_std"], abs=1e-4)
