"""Sizes of training images: other ones than are evaluated, and what the model cannot make."""

from __future__ import annotations

import pytest
import tiny_flux
import tiny_flux2
import tiny_qwenimage
import tiny_sd3
import tiny_t2i
import torch
import yaml
from tiny_experiment import Experiment

from promptecho.config import load_experiment, slice_digest
from promptecho.config.families import family_named
from promptecho.config.image_sizes import size_problem
from promptecho.errors import ConfigError
from promptecho.plan.gpus import find_gpu
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings
from promptecho.t2i.registry import load_family
from promptecho.train.loop import train_segment
from promptecho.train.sizes import TrainingSizes

ONE = {"iterations": 1, "checkpoints": [1]}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("sizes"), t2i=tiny_t2i.shallow_folder())


def test_training_has_a_size_of_its_own(experiment, train_in_process, monkeypatch):
    """The images that get rewards have it, whatever the model's size is, and it alone counts for the training."""
    from promptecho.train.placement.local import LocalRewarder

    seen, submit = set(), LocalRewarder.submit

    def submitted(self, images, *more):
        seen.update(image.size for image in images)
        return submit(self, images, *more)

    monkeypatch.setattr(LocalRewarder, "submit", submitted)
    config = experiment.config("small", **ONE, height=16, width=24)
    assert train_segment(experiment.segment("small", config, 1))
    assert seen == {(24, 16)}
    usual, small = load_experiment(experiment.config("usual")), load_experiment(config)
    assert slice_digest(usual, "train", "r") != slice_digest(small, "train", "r")
    for own, same in (({}, False), ({"height": 16}, False), ({"height": 16, "width": 24}, True)):
        digests = set()
        for side in (32, 64):  # only evaluated at
            path = experiment.config("evaluated", **own)
            content = yaml.safe_load(path.read_text())
            content["models"]["t2i"]["width"] = side
            path.write_text(yaml.safe_dump(content))
            digests.add(slice_digest(load_experiment(path), "train", "r"))
        assert (len(digests) == 1) is same


def test_the_shift_of_the_sampler_follows_the_size(experiment):
    """As diffusers' pipeline has it, which computes it from the number of the image's tokens."""
    family = load_family("qwenimage", str(tiny_qwenimage.shared_folder()))
    config = load_experiment(experiment.config("shift", height=64, width=48, sampling={"num_inference_steps": 4}))
    training, t2i = config.runs["r"], config.models.t2i
    family.pipeline(
        prompt_embeds=torch.zeros(1, 3, 32), prompt_embeds_mask=torch.ones(1, 3, dtype=torch.long), height=64,
        width=48, num_inference_steps=4, true_cfg_scale=1.0, output_type="latent",
    )  # fmt: skip
    theirs = family.pipeline.scheduler.sigmas[:-1].float()
    (ours,) = (size.grid for size in TrainingSizes.of(family, training, t2i).sizes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    (small,) = (size.grid for size in TrainingSizes.of(family, training.of_size(16, 16), t2i).sizes)
    assert (small[1:-1] < ours[1:-1]).all()  # a smaller image needs less noise to be hidden


@pytest.mark.parametrize("family", ["zimage", "qwenimage", "flux", "sd3", "flux2"])
def test_what_is_refused_is_what_the_model_cannot_make(family):
    tiny = {"zimage": tiny_t2i, "qwenimage": tiny_qwenimage, "flux": tiny_flux, "sd3": tiny_sd3, "flux2": tiny_flux2}
    folder = tiny[family].shared_folder()
    model, descriptor = load_family(family, str(folder)), family_named(family)
    for side in range(4, 81, 4):
        try:
            fits = bool(model.latent_shape(side, 64))
        except Exception:
            fits = False
        assert fits is (size_problem(descriptor, folder, side, 64) is None), side
    assert size_problem(descriptor, folder / "nowhere", 33, 33) is None  # it is loaded first


def test_a_size_that_cannot_be_is_refused_where_it_is_written(experiment):
    sets = {"image_sets": {"wide": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}, "width": 44}}}
    path = experiment.config("odd", sections=sets, height=36, width=1024)
    with pytest.raises(ConfigError) as error:
        load_experiment(path)
    assert str(error.value).splitlines() == [
        f"{path}: image_sets.wide.height: 32 x 44 pixels: both must be multiples of 8, such as 32 x 48; correct height "
        "and width",
        f"{path}: training.height: 36 x 1024 pixels: both must be multiples of 8, such as 32 x 1024; correct height "
        "and width (run r)",
    ]
    with pytest.raises(ConfigError, match="32 x 1024 pixels: the model has positions for 512 x 512"):
        load_experiment(experiment.config("far", width=1024))


def test_a_plan_tells_what_smaller_images_save(experiment):
    cluster, planner = Cluster(find_gpu("h100"), 1, 2), Planner(Settings(0.4, 0.7, 50.0, 4.0, 9, 100, "What?", True))
    usual, small = (
        planner.run(load_experiment(experiment.config(f"plan-{key}", **own)), cluster, "r")
        for key, own in (("usual", {}), ("small", {"height": 16, "width": 16}))
    )
    assert usual.usual_size is None and usual.sizes == [(32, 32)]
    assert small.usual_size.size == (32, 32) and small.sizes == [(16, 16)]
    assert small.usual_size.seconds == usual.seconds > small.seconds
    assert small.usual_size.peak == max(memory.peak for memory in usual.memory) > max(m.peak for m in small.memory)
