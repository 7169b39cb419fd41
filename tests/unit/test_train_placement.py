"""Four ranks on gloo: every placement of the reward and every ZeRO stage give the run of a single process."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_t2i
from forked import Started, ranks, run, start
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.config.rewards import PlacementSection, RewardSection, told_of_tokens
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError
from promptecho.train.loop import train_segment
from promptecho.train.placement.layout import RankLayout, make_layout

FOUR = ranks(4)
TWO_NODES = ranks(4, LOCAL_WORLD_SIZE=2)  # as on two nodes with two ranks each
# Every placement and every stage at least once, in pairs.
RUNS = {
    "replicated, stage 2": (FOUR, {"mode": "replicated"}, {"zero_stage": 2}),
    "colocated on two nodes, stage 3": (TWO_NODES, {"mode": "colocated", "gather": "phase"}, {"zero_stage": 3}),
    "offloaded, stage 1": (FOUR, {"mode": "offloaded"}, {"activation_checkpointing": True}),
    "two servers of one node, stage 2": (FOUR, {"mode": "dedicated", "per_node": 2}, {"zero_stage": 2}),
    "a server on each of two nodes, stage 3": (TWO_NODES, {"mode": "dedicated"}, {"zero_stage": 3}),
    # Three ranks can't share 8 images evenly: one makes a pass for nobody in each step.
    "three ranks, stage 1": (ranks(3), {"mode": "replicated"}, {"micro_batch_size": 1}),
    "three ranks, stage 3": (ranks(3), {"mode": "colocated"}, {"zero_stage": 3, "micro_batch_size": 1}),
}
SETTINGS = {
    "iterations": 2, "checkpoints": [2], "batch_size": 8, "heldout": {"prompts": 2, "every": 2},
    "sampling": {"num_inference_steps": 2}, "timesteps": {"per_sample": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("placement"), t2i=tiny_t2i.shallow_folder())
    rows = '{"data_id": "h1", "caption": "Two red stars."}\n{"data_id": "h2", "caption": "A blue ring."}\n'
    (experiment.folder / "heldout.jsonl").write_text(rows)
    return experiment


def arguments(experiment: Experiment, name: str, placement: dict, options: dict, *more: str) -> list[str]:
    config = configured(experiment, name, reward_placement=placement, **options)
    return experiment.train(config, 2, name, "--heldout", experiment.folder / "heldout.jsonl", *more)


def configured(experiment: Experiment, name: str, **options) -> Path:
    captions = {"prompts": str(experiment.folder / "prompts.txt"), "heldout": 2}
    return experiment.config(re.sub("[^a-z0-9]+", "-", name), sections={"captions": captions}, **SETTINGS | options)


@pytest.fixture(scope="module")
def alone(experiment, train_in_process) -> Path:
    heldout = experiment.folder / "heldout.jsonl"
    assert train_segment(experiment.segment("alone", configured(experiment, "alone"), 2, heldout=heldout))
    return experiment.folder / "alone" / "2"


@pytest.fixture(scope="module")
def trained(experiment):
    """What a run of RUNS said, and its checkpoint; trained when it is first asked for."""

    @functools.cache
    def train(name: str) -> tuple[str, Path]:
        of, placement, options = RUNS[name]
        return run(arguments(experiment, name, placement, options), of), experiment.folder / name / "2"

    return train


@pytest.mark.parametrize("name", RUNS)
def test_every_placement_and_stage_is_the_run_of_one_process(alone, trained, name):
    said, checkpoint = trained(name)
    servers = {"two servers of one node, stage 2": 1, "a server on each of two nodes, stage 3": 2}.get(name, 0)
    assert said.count("process(es) serve the rewards of") == servers
    for ours, theirs in zip(metrics_without_times(checkpoint), metrics_without_times(alone), strict=True):
        assert ours.keys() == theirs.keys()
        # The first iteration's images are the same, so are its rewards but for the last digits; later ones come from
        # weights that differ in theirs.
        first = ours["iteration"] <= 1
        for key in (key for key in ours if key.startswith(("reward", "heldout_reward"))):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-6 if first and "heldout" not in key else 1e-3), key
        for key in ("policy_loss", "grad_norm", "kl_ema", "kl_base", "ratio_mean"):
            if key in ours:
                assert ours[key] == pytest.approx(theirs[key], rel=2e-2, abs=1e-6), key
    ours, theirs = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (checkpoint, alone))
    assert ours.keys() == theirs.keys()
    moved = 0.0
    for key in theirs:
        moved = max(moved, float(theirs[key].abs().max()))
        assert (ours[key] - theirs[key]).abs().max() < 2e-4, key  # steps are 5e-3 large
    assert moved > 1e-2


def test_modes_that_share_ranks_give_the_same_bits(trained):
    """Same shares, same batches: only where the weights lie between passes differs."""
    rows = [metrics_without_times(trained(name)[1]) for name in ("replicated, stage 2", "offloaded, stage 1")]
    # The untrained model's held-out rewards and the first iteration's; then ZeRO's stages may round differently.
    ours, theirs = ([{k: v for k, v in row.items() if "reward" in k} for row in each[:2]] for each in rows)
    assert ours == theirs and "heldout_reward" in ours[0] and "reward_mean" in ours[1]


def test_stopped_and_then_without_its_server_a_run_goes_on_with_the_same_bits(experiment, trained):
    """Two servers of one node: asked to stop after its first iteration, then one of them killed in the second."""
    name = "two servers of one node, stage 2"
    asked = arguments(experiment, "goes on", *RUNS[name][1:])
    work, stop_file = Path(asked[asked.index("--work") + 1]), experiment.folder / "stop"
    process = start([*asked, "--stop-file", stop_file], ranks(4, each=True))
    wait_until(process, lambda: any((work / "states").glob("[0-9]*")))
    stop_file.touch()
    _, stderr = process.communicate()
    assert process.returncode == 1 and stderr.count("asked to stop; state of iteration 1 saved") == 1, stderr[-3000:]

    process = start(asked, ranks(4, each=True))
    wait_until(process, lambda: "from iteration 1 to 2" in process.said())
    os.kill(process.ranks()[2], signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == 1
    lines = [line for line in stderr.splitlines() if "the reward server, rank 2 of 4" in line]
    assert lines and all("is gone" in line and "start the same command again" in line for line in lines), stderr[-3000:]

    assert "from iteration 1 to 2" in run(asked, FOUR)
    ended, straight = experiment.folder / "goes on" / "2", trained(name)[1]
    assert same_bytes(ended, straight) == []
    assert metrics_without_times(ended) == metrics_without_times(straight)


def wait_until(process: Started, there: Callable[[], bool]) -> None:
    while process.poll() is None:
        if there():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1][-3000:])


@given(st.integers(1, 5), st.integers(1, 8), st.data())
def test_every_rank_has_one_role_and_knows_its_node(nodes, per_node, data):
    servers = data.draw(st.integers(0, per_node - 1))
    layouts = [RankLayout(rank, nodes * per_node, per_node, servers) for rank in range(nodes * per_node)]
    for serves, number in ((False, layouts[0].trainers), (True, layouts[0].servers)):
        same = [layout for layout in layouts if layout.serves == serves]
        assert [layout.index for layout in same] == list(range(number))
        for layout in same:
            group = layout.node_groups()[layout.node]
            assert layout.index in group
            assert {other.index for other in same if other.node == layout.node} == set(group)


def training(mode: str, per_node: int = 1, **options) -> TrainingConfig:
    return TrainingConfig(reward_placement=PlacementSection(mode=mode, per_node=per_node), **options)


@pytest.mark.parametrize(
    ("config", "launched", "message"),
    [
        (training("dedicated"), (1, None), "per_node 1: of 1 process.es. on each node none is left to train"),
        (training("dedicated", 4), (8, 4), "per_node 4: of 4 process.es. on each node none is left"),
        (training("colocated"), (4, None), "the launcher does not say how many processes run on each node"),
        (training("colocated"), (6, 4), "6 processes are not a multiple of 4 on each node"),
    ],
)
def test_layouts_that_cannot_work(config, launched, message):
    with pytest.raises(ConfigError, match=message):
        make_layout(config, 0, *launched)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_any_number_of_processes_can_train(nodes, per_node, servers):
    config = training("dedicated", servers)
    if servers < per_node:
        assert make_layout(config, 0, nodes * per_node, per_node).trainers == nodes * (per_node - servers)
        return
    with pytest.raises(ConfigError, match="none is left to train") as caught:
        make_layout(config, 0, nodes * per_node, per_node)
    if way := re.search(r"per_node to at most (\d+)", str(caught.value)):
        assert make_layout(training("dedicated", int(way[1])), 0, nodes * per_node, per_node).trainers
    assert make_layout(training("colocated"), 0, nodes * per_node, per_node).trainers
    least = int(re.search(r"start at least (\d+) processes", str(caught.value))[1])
    assert make_layout(config, 0, nodes * least, least).trainers == nodes


def test_a_vlm_that_writes_while_it_is_spread_over_gpus_is_warned_of():
    rewards = [RewardSection(name="echo"), RewardSection(name="inferscore")]
    told = {
        (mode, servers, processes): told_of_tokens(rewards, PlacementSection(mode=mode, per_node=servers), processes)
        for mode, servers, processes in [
            ("colocated", 1, 2), ("colocated", 1, 1), ("offloaded", 1, 1), ("replicated", 1, 8), ("dedicated", 1, 7),
            ("dedicated", 2, 6),
        ]
    }  # fmt: skip
    spread = [("colocated", 1, 2), ("offloaded", 1, 1), ("dedicated", 2, 6)]
    assert [case for case, text in told.items() if text] == spread
    assert told[spread[0]].startswith("inferscore lets the VLM write") and "mode colocated and" in told[spread[0]]
    assert not told_of_tokens(rewards, PlacementSection(mode="colocated", gather="phase"), 2)
    assert not told_of_tokens(rewards[:1], PlacementSection(mode="colocated"), 8)


def test_a_vlm_that_writes_is_gathered_once_for_each_phase_unless_the_key_says_otherwise(experiment, monkeypatch):
    from promptecho.commands.train import _with_gathering
    from promptecho.config import load_experiment, run_training

    def way(processes: int, **options) -> str:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        config = load_experiment(configured(experiment, "gathered", **options))
        return run_training(_with_gathering(config, "r", "cpu"), "r").reward_placement.gather

    writes = {"rewards": [{"name": "inferscore"}]}
    assert [way(2, **writes), way(1, **writes), way(2)] == ["phase", "layer", "layer"]
    assert way(2, **writes, reward_placement={"gather": "layer"}) == "layer"


def test_refused_before_a_model_is_loaded(experiment):
    """The models don't even exist."""
    missing = {"t2i": {"path": "/nowhere/t2i"}, "vlm": {"path": "/nowhere/vlm"}}
    config = experiment.config(
        "refused", sections={"models": missing}, reward_placement={"mode": "dedicated"}, **SETTINGS | {"heldout": {}}
    )
    stderr = run(experiment.train(config, 2, "refused"), code=1)
    assert "training.reward_placement.per_node 1: of 1 process(es) on each node none is left to train" in stderr
    assert "nowhere" not in stderr
