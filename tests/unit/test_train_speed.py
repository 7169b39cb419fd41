"""TFLOP/s and MFU in the rows of metrics: what is counted, what is divided by what, and what is left out."""

from __future__ import annotations

import json

import pytest
from forked import ended
from tiny_experiment import Experiment

from promptecho.config import load_experiment, run_training
from promptecho.config.training import TrainingConfig
from promptecho.phases import MEASURED, Phase
from promptecho.plan.gpus import find_gpu, known, of_device
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings
from promptecho.plan.useful import work_of
from promptecho.train.speed import Effort, Work, rates, reference_sets

TOKENS = 9


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return Experiment(tmp_path_factory.mktemp("speed"))


def one_of_each(ideal: float | None = 1.0) -> dict[Phase, Effort]:
    return {phase: Effort(10**12, ideal) for phase in MEASURED}


def test_rates_are_work_over_gpus_and_seconds():
    useful = one_of_each()
    work = Work(useful, {**useful, Phase.UPDATE: Effort(4 * 10**12, 4.0)}, "a card")
    seconds = {f"seconds_{phase}": 2.0 for phase in MEASURED} | {"seconds": 12.0, "seconds_heldout": 2.0}
    found = rates(work, seconds, sets=2, trainers=2, gpus=2)
    assert found["tflops_sample"] == found["mfu_sample"] == 0.25  # 1 of 2 GPUs x 2 s
    assert found["mfu_precompute"] == 0.5  # two sets of passes
    assert (found["mfu_update"], found["hfu_update"]) == (0.25, 1.0)  # computed again: no work of MFU's
    assert "hfu_sample" not in found
    assert (found["mfu"], found["hfu"]) == (5 / 20, 8 / 20)  # held-out evaluations are no part of it


def test_an_unknown_card_has_no_mfu_and_unknown_work_no_rate():
    seconds = {f"seconds_{phase}": 2.0 for phase in MEASURED} | {"seconds": 8.0}
    unknown = one_of_each(None)
    found = rates(Work(unknown, unknown), seconds, sets=1, trainers=1, gpus=1)
    assert set(found) == {"tflops", *(f"tflops_{phase}" for phase in MEASURED)}
    less = {phase: effort for phase, effort in one_of_each().items() if phase != Phase.REWARD}
    found = rates(Work(less, less), seconds, sets=1, trainers=1, gpus=1)
    assert "tflops_sample" in found and not {"tflops_reward", "tflops", "mfu"} & set(found)
    # Rewards of other GPUs come while images are sampled.
    found = rates(Work(one_of_each(), one_of_each()), seconds, sets=1, trainers=1, gpus=2)
    assert "mfu_reward" not in found and found["mfu"] == 4 / 16


def test_sets_of_weights_that_precompute_goes_through():
    def sets(iteration=1, **training):
        return reference_sets(TrainingConfig(**training), iteration)

    assert (sets(0), sets(1)) == (1, 2)  # at first the average is the policy
    assert sets(kl_ema={"weight": 0}) == sets(kl_ema={"decay": 0}) == 1
    assert sets(sampling={"policy": "ema"}) == 1  # the average's serve both
    assert sets(kl_base={"weight": 0.1}) == 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_work_is_the_plans(experiment, checkpointing):
    config = load_experiment(experiment.config(activation_checkpointing=checkpointing))
    work = work_of(config, "r", TOKENS, find_gpu("h100"))
    settings = Settings(1.0, 1.0, 1.0, 0.0, TOKENS, 1, config.captions.query, False)
    phases = Planner(settings).run(config, Cluster(find_gpu("h100"), 1, 1), "r").phases
    flops = {phase.name: phase.flops for phase in phases}
    sets = reference_sets(run_training(config, "r"), 1)
    assert work.useful[Phase.SAMPLE].flops == flops["encode"] + flops["sample"] + flops["decode"]
    assert work.useful[Phase.REWARD].flops == flops["reward"]
    assert work.useful[Phase.PRECOMPUTE].times(sets).flops == flops["precompute"]
    assert work.computed[Phase.UPDATE].flops == flops["update"]
    assert (work.useful[Phase.UPDATE].flops < flops["update"]) is checkpointing
    assert work.useful[Phase.SAMPLE].ideal_s > 0 and work.gpu == find_gpu("h100").name


def test_rewards_that_write_have_no_known_work(experiment):
    written = [{"name": "inferscore"}]
    work = work_of(load_experiment(experiment.config(sections={"rewards": written})), "r", TOKENS)
    assert set(work.useful) == {Phase.SAMPLE, Phase.PRECOMPUTE, Phase.UPDATE}
    assert work.useful[Phase.SAMPLE].ideal_s is None and work.gpu is None


def test_cards_by_the_name_that_cuda_has_for_them():
    names = [device for gpu in known().values() for device in gpu.devices]
    assert of_device("NVIDIA H100 80GB HBM3") == "h100" and len(names) == len(set(names))
    for other in ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090", ""):
        assert of_device(other) is None


def test_a_run_tells_its_speed_where_it_is_asked_to(experiment, tmp_path):
    config = experiment.config(checkpoints=[2, 8], sections={"compute": {"mfu": "on"}})
    stderr = ended(
        ["train", "--config", config, "--run", "r", "--to", "2", "--captions", experiment.captions, "--device", "cpu",
         "--out", tmp_path / "2", "--work", tmp_path / "work"]
    )[1]  # fmt: skip
    assert "no datasheet of a CPU is known: TFLOP/s, no MFU" in stderr
    rows = [json.loads(line) for line in (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert all(row[f"tflops_{phase}"] > 0 for phase in MEASURED) and row["tflops"] > 0
        assert not any(key.startswith(("mfu", "hfu")) for key in row)
