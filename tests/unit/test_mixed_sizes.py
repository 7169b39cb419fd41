"""Training on images of several sizes: a prompt has one, and neither ranks, batches nor interruptions matter."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import tiny_t2i
import torch
from forked import ranks, run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times, same_bytes
from tiny_policy import TRAINING, adapted, batch_of

from promptecho.config import load_experiment
from promptecho.config.training import TrainingConfig
from promptecho.config.training_checks import training_problems
from promptecho.errors import ConfigError, PromptEchoError
from promptecho.files import write_jsonl
from promptecho.plan.gpus import find_gpu
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings
from promptecho.rewards.base import ImageScore
from promptecho.t2i.lora import trained_parameters
from promptecho.train import tracked
from promptecho.train.data import TrainingPrompt
from promptecho.train.loop import train_segment
from promptecho.train.losses import loss_of
from promptecho.train.placement.local import LocalRewarder
from promptecho.train.replay import replay
from promptecho.train.scoring import WeightedReward, score_images
from promptecho.train.sizes import TrainingSize, TrainingSizes, by_shape, cut, spread

SIZES = [{"height": 32, "width": 32}, {"height": 16, "width": 24}]
MIXED = {
    "iterations": 2, "checkpoints": [1, 2], "sizes": SIZES, "heldout": {"prompts": 3, "every": 1},
    "timesteps": {"per_sample": 2, "distribution": "stratified_grid"}, "update_images_per_prompt": 2,
    "prompts_per_iteration": 3, "batch_size": 6, "learning_rate": 1e-3,
}  # fmt: skip

VALUES = ("noise", "base_velocity", "ema_velocity")


def of_weights(*weights: float, seed: int = 1) -> TrainingSizes:
    sizes = tuple(TrainingSize(8 * k, 8, (4, 2 * k, 2), torch.ones(1)) for k in range(1, len(weights) + 1))
    return TrainingSizes(sizes, weights, seed)


# Which size a prompt has, and rows.


def test_prompts_have_sizes_in_proportion_to_the_weights():
    sizes = of_weights(1.0, 2.0, 0.5)
    counts = Counter(sizes.number(f"image {k}") for k in range(7000))
    for number, expected in enumerate((2000, 4000, 1000)):
        assert abs(counts[number] - expected) < 200  # four standard deviations and more
    assert [of_weights(1.0, 1.0, seed=s).number("a cat.png") for s in range(6)] == [0, 1, 0, 0, 1, 1]  # for ever
    assert {of_weights(1.0).number(f"{k}") for k in range(9)} == {0}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_rows_come_back_in_their_shapes(heights):
    sizes = of_weights(*[1.0] * 4)
    images = [torch.randn(sizes.sizes[k - 1].shape) for k in heights]
    rows = torch.cat([spread(image[None], sizes.row) for image in images])
    for indices, shape in by_shape([tuple(image.shape) for image in images]):
        assert torch.equal(cut(rows[indices], shape), torch.stack([images[index] for index in indices]))
    one = torch.randn(3, 4, 2, 2)
    assert spread(one, (4, 2, 2)) is one and cut(one, (4, 2, 2)) is one


# The loss.


@pytest.mark.parametrize("algorithm", ["awm", "nft"])
def test_the_loss_of_mixed_sizes_is_the_mean_over_their_images(algorithm):
    """Values and gradients, whatever the order in which sizes come."""
    kl = TRAINING.kl_ema.model_copy(update={"weight": 0.5})
    training = TRAINING.model_copy(update={"kl_ema": kl, "algorithm": algorithm})
    family = adapted("zimage", "float32", folder=tiny_t2i.shallow_folder())
    large = batch_of(family, 4)
    zeros = torch.zeros_like(large.noise)
    large = dataclasses.replace(large, ema_velocity=zeros, stored={"old_velocity": zeros})
    small = dataclasses.replace(
        large, **{key: getattr(large, key)[..., :4, :6].contiguous() for key in (*VALUES, "x0")},
        stored={"old_velocity": zeros[..., :4, :6].contiguous()},
    )  # fmt: skip
    own = [large, small, small, large]
    row = (large.x0[0].numel(),)

    def rows(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([spread(value, row) for value in values])

    mixed = dataclasses.replace(
        large, x0=rows([part.x0[[k]] for k, part in enumerate(own)]),
        **{
            key: rows([getattr(part, key)[:, k] for k, part in enumerate(own)])[None]
            for key in VALUES
        },
        stored={"old_velocity": rows([part.stored["old_velocity"][:, k] for k, part in enumerate(own)])[None]},
        shapes=[tuple(part.x0.shape[1:]) for part in own],
    )  # fmt: skip
    parameters = list(trained_parameters(family.transformer).values())

    def gradients(batches: list) -> tuple[dict, list[torch.Tensor]]:
        found, told = [torch.zeros_like(p) for p in parameters], Counter()
        for batch in batches:
            loss, metrics = loss_of(family, batch, training)
            for total, g in zip(found, torch.autograd.grad(loss, parameters), strict=True):
                total += g / len(batches)
            told.update({"loss": float(loss.detach()) / len(batches)})
            told.update({key: float(value) / len(batches) for key, value in metrics.items()})
        return told, found

    (told, found), (each, expected) = gradients([mixed]), gradients([part.take([k]) for k, part in enumerate(own)])
    assert told == pytest.approx(each, rel=1e-4) and {"kl_base", "kl_ema"} < set(told)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


# Rewards.


def test_images_of_one_size_are_scored_together_and_rewards_come_in_order():
    lots = []

    class Wide:
        may_be_missing = False

        def score(self, images, labels, ids):
            lots.append([image.size for image in images])
            return [
                ImageScore(image.width + int(name) / 10, replies=2, measures={"height": image.height})
                for image, name in zip(images, ids, strict=True)
            ]

    images = [Image.new("RGB", size) for size in ((8, 16), (24, 8), (8, 16), (24, 8), (16, 8))]
    prompts = [TrainingPrompt(str(k), "A star.") for k in range(5)]
    entry = WeightedReward("wide", 1.0, "", reward=Wide(), measures=("height",))
    found = score_images([entry], images, prompts, [f"image {k}" for k in range(5)], lambda n: None)
    assert lots == [[(8, 16)] * 2, [(24, 8)] * 2, [(16, 8)]]
    assert found.rewards.tolist() == [pytest.approx([8.0, 24.1, 8.2, 24.3, 16.4])]
    assert found.measures.tolist() == [[16, 8, 16, 8, 8]] and found.replies.tolist() == [[2] * 5]


# Whole trainings.


def written(experiment: Experiment, name: str, **more) -> Path:
    captions = {"prompts": str(experiment.folder / "prompts.txt"), "heldout": 3}
    return experiment.config(name, sections={"captions": captions}, **MIXED | more)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("mixed"), t2i=tiny_t2i.shallow_folder())


@pytest.fixture(scope="module")
def heldout(experiment) -> Path:
    path = experiment.folder / "heldout_captions.jsonl"
    write_jsonl(
        path, [{"data_id": f"h{i}", "caption": text} for i, text in enumerate(["A star.", "Rings.", "A cross."])]
    )
    return path


@pytest.fixture(scope="module")
def one(experiment, heldout) -> tuple[Path, dict[str, set], list[tuple[int, int]]]:
    """A run of two iterations in one go: its last checkpoint, sizes of the images that got rewards by prompt, and of
    those for trackers."""
    seen, shown, submit, grid = defaultdict(set), [], LocalRewarder.submit, tracked.sample_grid

    def submitted(self, images, prompts, names):
        for image, prompt in zip(images, prompts, strict=True):
            seen[prompt.prompt_id].add(image.size)
        return submit(self, images, prompts, names)

    def gridded(*arguments):
        shown.append([(one.prompt_id, one.image.size) for one in grid(*arguments)])
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalRewarder, "submit", submitted)
        patch.setattr(tracked, "sample_grid", gridded)
        config = written(experiment, "mixed")
        options = {"heldout": heldout, "tensorboard": experiment.folder / "tensorboard"}
        assert train_segment(experiment.segment("one", config, 2, **options))
    return experiment.folder / "one" / "2", seen, shown


def test_all_images_of_a_prompt_have_its_size(one, train_in_process):
    """Those that are trained on, held-out ones, and those for trackers."""
    _, seen, shown = one
    sizes = of_weights(1.0, 1.0)
    expected = {name: {[(32, 32), (24, 16)][sizes.number(name)]} for name in seen}
    assert seen == expected and set.union(*seen.values()) == {(32, 32), (24, 16)}
    assert {name[0] for name in seen} == {"0", "h"}  # the captions and the held-out ones
    assert len(shown) == 2 and all({size} == seen[name] for name, size in shown[0] + shown[1])


def test_an_interrupted_run_has_the_same_bytes(experiment, heldout, one, train_in_process):
    config = experiment.folder / "mixed.yaml"
    for to, resume in ((1, None), (2, experiment.folder / "parts" / "1")):
        assert train_segment(experiment.segment("parts", config, to, heldout=heldout, resume=resume))
    folder = experiment.folder / "parts" / "2"
    assert same_bytes(folder, one[0]) == []
    assert metrics_without_times(folder) == metrics_without_times(one[0])[-1:]


@pytest.mark.parametrize("micro", [2, 5])
def test_several_processes_and_other_batches_train_as_one(experiment, heldout, one, train_in_process, micro):
    """Passes are made of other images, and of one size or two."""
    config = written(experiment, f"micro-{micro}", micro_batch_size=micro, sampling={"batch_size": 3})
    arguments = experiment.train(config, 2, f"micro-{micro}", "--heldout", heldout)
    run(arguments, ranks(3 if micro == 2 else 1))
    folder = experiment.folder / f"micro-{micro}" / "2"
    for name in ("weights", "exp_avg"):
        a, b = (load_file(path / "state" / f"{name}.safetensors") for path in (folder, one[0]))
        for key, value in b.items():
            torch.testing.assert_close(a[key], value, rtol=1e-3, atol=1e-4)
    for row, other in zip(metrics_without_times(folder), metrics_without_times(one[0]), strict=True):
        assert row.keys() == other.keys() and row["heldout_reward"] == pytest.approx(other["heldout_reward"], abs=1e-4)
        for key in {"reward_mean", "diversity", "grad_norm", "kl_base"} & row.keys():
            assert row[key] == pytest.approx(other[key], rel=1e-3)


def test_a_batch_at_fault_is_computed_again_in_its_sizes(experiment, heldout, train_in_process):
    config = written(experiment, "diverge", learning_rate=1e30, max_grad_norm=1e30, passes=4)
    job = experiment.segment("diverge", config, 1, heldout=heldout)
    with pytest.raises(PromptEchoError, match="is not finite on prompt") as error:
        train_segment(job)
    folder = Path(str(error.value).rsplit("--replay ", 1)[1])
    rows = load_file(folder / "batch.safetensors")["x0"]
    assert rows.shape[1:] == (4 * 8 * 8,)
    found = replay(load_experiment(config), folder, torch.device("cpu"))
    assert len(found["images"]) == len(rows) and all(image["x0_finite"] for image in found["images"])


# What is refused, and what is planned.


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"height": 64}, "give either sizes or height; set the other to null"),
        ({"algorithm": "grpo"}, "does not go with algorithm: grpo"),
        ({"zero_stage": 3}, "does not go with zero_stage 3, where all processes make each pass together"),
        ({"sizes": [*SIZES, SIZES[0]]}, "32 x 32 is there twice; add their weights"),
    ],
)
def test_what_does_not_go_with_several_sizes_is_named(training, message):
    assert message in dict(training_problems(TrainingConfig(**{"sizes": SIZES, **training})))["sizes"]


def test_each_size_that_cannot_be_made_is_named(experiment):
    path = experiment.config("odd", sizes=[*SIZES, {"height": 30, "width": 32}])
    with pytest.raises(ConfigError, match=r"training.sizes.2.height: 30 x 32 pixels: both must be multiples of 8"):
        load_experiment(path)


def test_a_plan_has_the_memory_of_the_largest_and_the_time_of_all(experiment):
    cluster, planner = Cluster(find_gpu("h100"), 1, 1), Planner(Settings(0.4, 0.7, 50.0, 4.0, 9, 100, "What?", True))

    def planned(name: str, **training):
        return planner.run(load_experiment(experiment.config(name, **training)), cluster, "r")

    weighted = [SIZES[0] | {"weight": 3.0}, SIZES[1]]
    mixed = planned("plan-mixed", sizes=weighted)
    large, small = (planned(f"plan-{k}", **size) for k, size in enumerate(SIZES))
    assert mixed.seconds == pytest.approx(0.75 * large.seconds + 0.25 * small.seconds)
    assert [memory.peak for memory in mixed.memory] == [memory.peak for memory in large.memory]
    assert mixed.sizes == [(32, 32), (16, 24)] and mixed.usual_size.seconds == large.seconds
