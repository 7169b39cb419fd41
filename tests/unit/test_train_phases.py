"""Phases of training: what they unite, how often ranks exchange for them, and where their names stand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import tiny_t2i
import torch
from forked import ranks, run
from tiny_experiment import Experiment

from promptecho.config import load_experiment, run_training
from promptecho.config.training import TrainingConfig
from promptecho.errors import OutOfMemoryError, RewardError
from promptecho.phases import Phase
from promptecho.plan.memory import images_met
from promptecho.train.launch import init_distributed
from promptecho.train.phases import Phases
from promptecho.train.stop import StopCheck, StopRequestedError
from promptecho.train.watchdog import Position, Watchdog, blame

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.usefixtures("train_in_process")

# One iteration of 8 images in batches of 4, twice: four optimizer steps. Where all ranks ask whether to leave:
BOUNDARIES = ["sample", "exchange", "exchange", "precompute", "exchange", "update", "update", "update", "update"]
STOP = ["all_reduce", ["torch.int64 [1]"]]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("phases"), t2i=tiny_t2i.shallow_folder())
    rows = [{"data_id": f"h{i}", "caption": text} for i, text in enumerate(["A red star.", "Two rings.", "A cross."])]
    (experiment.folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return experiment


def test_all_ranks_exchange_the_same_and_ask_at_the_known_places_whether_to_leave(experiment):
    """On three ranks, among which neither images nor units of a step can be dealt evenly: one has less to do."""
    config = experiment.config(
        "exchanges", sections={"captions": {"prompts": "unused.txt", "heldout": 3}}, iterations=1, checkpoints=[1],
        sampling={"batch_size": 1, "num_inference_steps": 1}, timesteps={"per_sample": 1}, micro_batch_size=1,
        heldout={"prompts": 2, "every": 1, "images_per_prompt": 1},
    )  # fmt: skip
    folder = experiment.folder / "exchanges" / "calls"
    arguments = experiment.train(config, 1, "exchanges", "--heldout", experiment.folder / "heldout.jsonl")
    run([folder, *arguments], ranks(3), script=Path(__file__).with_name("recorded_ranks.py"))
    first, *others = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(3))
    for other in others:
        assert [alike(call) for call in first] == [alike(call) for call in other]
    assert {call[0] for call in first} >= {"all_gather_object", "all_reduce", "barrier"}
    heldout = ["exchange", "exchange"]  # behind its images, and behind their rewards
    asked = [[phase for *call, phase, at in first if call == STOP and at == iteration] for iteration in (0, 1)]
    assert asked == [heldout, BOUNDARIES + heldout]
    # Weights and moments cost no exchange but DeepSpeed's own: each of four steps sums gradients and gathers weights.
    large = [call for call in first if call[3] == 1 and call[2] == "update" and call[0] != "all_gather_object"]
    sizes = [max((elements(text) for text in call[1]), default=0) for call in large]
    assert sum(size > 100 for size in sizes) == 8, large
    # The process that meets most images receives their latents, as plans have it.
    latents = [[call[1][0] for call in calls if call[0] == "all_to_all_single"][-1] for calls in (first, *others)]
    most = images_met(run_training(load_experiment(config), "r"), 3)
    assert max(json.loads(text.split(" ", 1)[1])[0] for text in latents) == most


def elements(text: str) -> int:
    """Elements of a tensor that is told as "torch.float32 [3, 4]"."""
    return math.prod(json.loads(text[text.index("[") :]))


def alike(call: list) -> list:
    """What all ranks must have in common of a call: in an exchange of rows each has its own number of them."""
    name, tensors, *_ = call
    return [name, [text.split(" [")[0] for text in tensors] if name == "all_to_all_single" else tensors]


@pytest.fixture
def phase(tmp_path) -> Phases:
    device = torch.device("cpu")
    init_distributed(TrainingConfig(), device)
    watchdog = Watchdog(tmp_path / "ranks", 0, 1, 600, 600)
    phase = Phases(watchdog, StopCheck(None), device, lambda phase, device: [f"lower {phase} on {device}"])
    phase.begin(2)
    return phase


def test_a_part_of_a_phase_has_its_place_and_time_but_advice_of_its_own(phase):
    message = r"^out of memory on cpu in phase sample of iteration 2: .*; lower sample on cpu$"
    with pytest.raises(OutOfMemoryError, match=message), phase(Phase.HELDOUT), phase(Phase.SAMPLE):
        raise MemoryError
    with phase(Phase.HELDOUT):
        with phase(Phase.SAMPLE):
            phase.moved(3)
            at = phase.watchdog.position
            assert (at.iteration, at.phase, at.step) == (2, "heldout", 3)
        with phase(Phase.REWARD):
            assert phase.watchdog.position.boundary > at.boundary
    for _ in range(2):
        with phase(Phase.PRECOMPUTE):
            pass
    with phase(Phase.EXCHANGE):  # of what was precomputed
        assert phase.watchdog.position.phase == "exchange"
    assert list(phase.meter.seconds) == list(phase.meter.memory) == ["heldout", "precompute"]
    whole = phase.meter.metrics(4)["seconds"]
    assert whole >= round(sum(phase.meter.seconds.values()), 3) and min(phase.meter.memory.values()) > 0


def test_a_phase_that_is_broken_off_leaves_at_its_end_and_an_error_of_a_reward_comes_first(phase):
    done = []
    with pytest.raises(RewardError, match="unreadable"), phase(Phase.REWARD):
        raise RewardError("unreadable")
    phase.stop.signalled = True
    with pytest.raises(StopRequestedError), phase(Phase.REWARD):
        phase.stop.poll()
        done.append("went on although asked to stop")
    with pytest.raises(RewardError, match="unreadable"), phase(Phase.REWARD):
        raise RewardError("unreadable")
    with phase(Phase.EXCHANGE):
        phase.stop.poll()  # there all ranks go on
    with pytest.raises(StopRequestedError), phase(Phase.UPDATE, step=1):
        done.append("began although asked to stop")
    assert done == [] and phase.watchdog.position.phase == "update"


def test_who_waits_where_all_meet_is_ahead_of_who_has_as_many_steps_behind_it():
    """A rank with fewer images has as many steps behind it as one that hangs in its last image."""
    waits, hangs = Position(0, 7, Phase.EXCHANGE, 0, "a", 1, 12), Position(1, 7, Phase.PRECOMPUTE, 6, "b", 2, 11)
    assert blame([waits, hangs]).startswith("rank 1 (b, pid 2) in phase precompute, step 6, of iteration 7: it is")


def test_the_documentation_tells_of_every_phase():
    table = (ROOT / "docs" / "training.md").read_text().split("\n| Phase |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(Phase)
