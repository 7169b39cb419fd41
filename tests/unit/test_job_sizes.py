"""What an experiment's jobs ask a cluster for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from promptecho.config.job_sizes import PRESETS, cluster_resources, size_of, takes_gpu
from promptecho.config.models import ExperimentConfig


def experiment(t2i: str = "shapes", vlm: str = "shapes", runs: dict | None = None, **resources) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "experiment": "e", "models": {"t2i": {"path": t2i}, "vlm": {"path": vlm}}, "runs": runs or {},
            "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 0}, "resources": resources,
        }
    )  # fmt: skip


def test_the_models_say_the_size_unless_the_experiment_does():
    assert size_of(experiment()) == "small"
    assert size_of(experiment(t2i="/models/real")) == size_of(experiment(vlm="Qwen/Qwen3-VL-2B")) == "large"
    assert size_of(experiment(runs={"r": {"reward_vlm": {"path": "/models/other"}}})) == "large"
    assert size_of(experiment(t2i="/models/real", size="small")) == "small"
    assert size_of(experiment(size="large")) == "large"


def test_presets_say_everything_of_every_stage():
    for stages in PRESETS.values():
        assert {stage: [k for k, v in one.model_dump().items() if v is None] for stage, one in stages.items()} == {
            stage: [] for stage in ("caption", "train", "generate", "judge", "score", "guard")
        }


def test_gpus_and_ranks_of_training_say_each_other():
    def ranks(on_gpu=True, **train):
        found = cluster_resources(experiment(t2i="/models/real", train=train), "train", on_gpu)
        return found.nodes, found.tasks_per_node, found.gpus_per_node

    assert ranks() == (4, 8, 8)
    assert ranks(tasks_per_node=4) == ranks(gpus_per_node=4) == (4, 4, 4)
    assert ranks(nodes=1, tasks_per_node=2, gpus_per_node=4) == (1, 2, 4)
    assert ranks(on_gpu=False, nodes=1, tasks_per_node=2) == (1, 2, 0)
    assert ranks(gpus_per_node=0)[2] == 0


def test_a_judge_that_is_a_model_in_the_job_has_room_to_load_it():
    """An 8B model in bfloat16 is 17 GB in the machine's memory before it is on the GPU."""
    config = experiment(t2i="/models/real")
    caption, inside = (cluster_resources(config, stage, on_gpu=True) for stage in ("caption", "judge"))
    assert (inside.mem_mb, inside.threads, inside.gpus_per_node) == (caption.mem_mb, caption.threads, 1)
    assert cluster_resources(config, "judge", on_gpu=False).mem_mb == 8_000
    said = experiment(t2i="/models/real", judge={"mem_mb": 5_000})
    assert cluster_resources(said, "judge", on_gpu=True).mem_mb == 5_000


def test_a_guard_asks_for_what_its_own_model_takes():
    """Not for what captions take, whose model a server elsewhere may have."""
    config = experiment(t2i="/models/real", vlm="/models/vlm").model_dump(mode="json", exclude_defaults=True)
    config["captions"] = {"images": "images", "heldout": 0, "server": {"endpoint": "http://there/v1", "model": "m"}}
    config["models"]["vlms"] = {"own": {"path": "shapes-third"}}
    config["guards"] = [{"name": "echo"}, {"name": "echo", "column": "small", "vlm": "own"}]
    config = ExperimentConfig.model_validate(config)
    assert [takes_gpu(config, "guard", guard.title) for guard in config.guards] == [True, False]
    real, small = (cluster_resources(config, "guard", on_gpu) for on_gpu in (True, False))
    assert (real.mem_mb, real.threads, real.gpus_per_node) == (64_000, 8, 1)
    assert (small.mem_mb, small.gpus_per_node) == (4_000, 0)
    assert cluster_resources(experiment(), "guard", on_gpu=True).mem_mb == 64_000


def test_a_misspelt_key_is_refused():
    with pytest.raises(ValidationError, match=r"resources\.train\.node\b"):
        experiment(train={"node": 2})


def test_fewer_gpus_than_ranks_are_refused():
    with pytest.raises(ValidationError, match="gpus_per_node 3 is less than tasks_per_node 4"):
        experiment(train={"gpus_per_node": 3, "tasks_per_node": 4})
    assert experiment(train={"gpus_per_node": 0, "tasks_per_node": 4}).resources.train.tasks_per_node == 4
