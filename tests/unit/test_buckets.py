"""Aspect-ratio buckets, and prompts that have the size of the image that they caption."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
import tiny_t2i
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_experiment import Experiment, metrics_without_times, same_bytes
from typer.testing import CliRunner

from promptecho.captions.image_sizes import read_sizes, sizes_of_images, sizes_of_prompts, upright_size, write_sizes
from promptecho.captions.inputs import list_images
from promptecho.cli import app
from promptecho.config import TrainingConfig, load_experiment
from promptecho.config.buckets import bucket_sizes, nearest_size
from promptecho.config.slices import slice_digest, slice_value
from promptecho.config.training_checks import training_problems
from promptecho.doctor.image_sizes import image_sizes
from promptecho.doctor.preflight import make_preflight
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json, write_csv_or_jsonl, write_jsonl
from promptecho.images import load_image
from promptecho.plan.memory import GpuMemory
from promptecho.plan.result import RunPlan, UsualSize
from promptecho.plan.show import _usual_size
from promptecho.train.labels import prompt_use
from promptecho.train.loop import train_segment
from promptecho.train.placement.local import LocalRewarder
from promptecho.train.prompts import captions_problem

BUCKETS = {"pixels": 32 * 32, "max_ratio": 2.0, "multiple": 8}
SIZES = [(40, 24), (32, 32), (24, 40)]  # what they come to
TRAINING = {
    "iterations": 2, "checkpoints": [1, 2], "height": None, "buckets": BUCKETS, "size_by": "image",
    "prompts_per_iteration": 3, "batch_size": 6, "timesteps": {"per_sample": 1}, "images_per_prompt": 2, "passes": 1,
}  # fmt: skip
# Ids of prompts, and width and height of their images.
IMAGES = {"a": (640, 480), "b": (300, 900), "c": (512, 512), "d": (900, 300), "e": (77, 80), "f": (30, 50)}
EXPECTED = {"a": (40, 24), "b": (24, 40), "c": (32, 32), "d": (40, 24), "e": (32, 32), "f": (24, 40)}  # width, height


# The list.


@given(st.integers(64, 1 << 22), st.floats(1, 4), st.integers(1, 16).map(lambda k: 8 * k))
def test_buckets_are_multiples_within_the_budget_and_each_has_its_turned_one(pixels, max_ratio, multiple):
    sizes = bucket_sizes(pixels, max_ratio, multiple)
    assert {(width, height) for height, width in sizes} == set(sizes)
    assert (len(sizes) == 0) == (pixels < multiple**2)
    for height, width in sizes:
        assert height % multiple == width % multiple == 0
        assert height * width <= pixels < (height + multiple) * (width + multiple)
        assert max(height, width) <= Fraction(str(max_ratio)) * min(height, width)
        assert not any((height, width) != other and height <= other[0] and width <= other[1] for other in sizes)
    ratios = [Fraction(width, height) for height, width in sizes]
    assert ratios == sorted(set(ratios))  # from the tallest to the widest


def test_the_buckets_of_a_million_pixels():
    wide = [(1024, 1024), (960, 1088), (896, 1152), (832, 1216), (768, 1344), (704, 1408)]
    assert bucket_sizes(1 << 20, 2.0, 64) == (*((w, h) for h, w in reversed(wide[1:])), *wide)
    assert bucket_sizes(4096, 1.5, 8) == ((72, 56), (64, 64), (56, 72))
    assert (736, 640) in bucket_sizes(736 * 640, 1.15, 32)  # 1.15 * 640 is a little less than 736 in floats


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_the_nearest_bucket_is_so_by_the_logarithm_of_the_ratio(height, width):
    sizes = bucket_sizes(1 << 20, 2.0, 64)
    away = [abs(math.log(w / h) - math.log(width / height)) for h, w in sizes]
    found = nearest_size(sizes, height, width)
    assert away[found] == pytest.approx(min(away), abs=1e-12)
    assert nearest_size(sizes, 3 * height, 3 * width) == found  # the ratio alone counts
    turned = sizes[nearest_size(sizes, width, height)]
    assert turned == sizes[found][::-1]  # as the square is there


def test_ties_between_buckets_are_decided():
    assert nearest_size(((56, 72), (72, 56)), 5, 5) == 0 and nearest_size(((72, 56), (56, 72)), 5, 5) == 0
    assert nearest_size(((8, 16), (24, 12), (12, 24)), 5, 5) == 1  # of equally near ones the one with more pixels
    assert nearest_size(((8, 8), (16, 16), (8, 16)), 3, 3) == 1
    assert nearest_size(((10, 10), (10, 40)), 10, 20) == 1  # as far from both: 2, and 4 / 2


# Configuration.


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    made = Experiment(tmp_path_factory.mktemp("buckets"), t2i=tiny_t2i.shallow_folder())
    rows = [
        {"data_id": name, "caption": f"{text} {name}", "width": width, "height": height}
        for (name, (width, height)), text in zip(IMAGES.items(), ["A star.", "Rings."] * 3, strict=True)
    ]
    write_jsonl(made.folder / "sized.jsonl", rows)
    options = ["--prompts", made.folder / "sized.jsonl", "--out", made.captions]
    invoke("caption", "prompts", *options, "--heldout-out", made.folder / "heldout.jsonl", "--heldout", 1)
    options = ["--prompts", made.folder / "sized.jsonl", "--out", made.captions.with_name("image_sizes.jsonl")]
    invoke("caption", "sizes", *options)
    return made


def invoke(*words) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def written(experiment: Experiment, name: str = "by-image", prompts: str = "sized.jsonl", **training) -> Path:
    sections = {"captions": {"prompts": str(experiment.folder / prompts), "heldout": 1}}
    return experiment.config(name, sections=sections, **TRAINING | {"heldout": {"prompts": 1, "every": 1}} | training)


@pytest.mark.parametrize(
    ("training", "key", "message"),
    [
        ({"buckets": {}, "width": 64}, "buckets", "give either buckets or width; set the other to null"),
        ({"buckets": {}, "sizes": [{"height": 8, "width": k} for k in (8, 16)]}, "buckets", "give either buckets or"),
        ({"buckets": {}, "algorithm": "grpo"}, "buckets", "does not go with algorithm: grpo"),
        ({"size_by": "image"}, "size_by", "image chooses among several sizes: give sizes or buckets"),
        (
            {"size_by": "image", "sizes": [{"height": 8, "width": 8}, {"height": 8, "width": 16, "weight": 2}]},
            "size_by",
            "image leaves nothing to weights",
        ),
    ],
)
def test_what_does_not_go_with_buckets_is_named(training, key, message):
    assert message in dict(training_problems(TrainingConfig(**training)))[key]


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        (BUCKETS | {"multiple": 4}, "both must be multiples of 8, .*; correct multiple, pixels or max_ratio"),
        (BUCKETS | {"max_ratio": 1.1}, "come to one size, 32 x 32; raise max_ratio"),
        (BUCKETS | {"pixels": 63}, "no size has so few pixels; raise pixels, or lower multiple"),
    ],
)
def test_buckets_that_cannot_be_are_refused_when_the_configuration_is_read(experiment, buckets, message):
    with pytest.raises(ConfigError, match=f"training.buckets: .*{message}"):
        load_experiment(written(experiment, "odd", buckets=buckets))


def test_buckets_count_as_what_they_come_to(experiment):
    """So the size of models.t2i and the way to write them make no training again."""
    by_hand = [{"height": height, "width": width} for height, width in SIZES]
    made = load_experiment(written(experiment))
    listed = load_experiment(written(experiment, "by-image", buckets=None, sizes=by_hand))
    drawn = load_experiment(written(experiment, "by-image", size_by="draw"))
    digests = [slice_digest(one, "train", "r") for one in (made, listed, drawn)]
    assert digests[0] == digests[1] != digests[2]
    assert slice_digest(made, "merge") == slice_digest(drawn, "merge")
    larger = made.models.model_copy(update={"t2i": made.models.t2i.model_copy(update={"height": 48, "width": 48})})
    assert slice_digest(made.model_copy(update={"models": larger}), "train", "r") == digests[0]
    plain = load_experiment(written(experiment, "by-image", buckets=None, size_by="draw"))
    assert not {"buckets", "size_by", "sizes"} & set(slice_value(plain, "train", "r")["training"])
    assert made.runs["r"].image_sizes(made.models.t2i) == SIZES


def test_the_check_lists_the_buckets_and_the_doctor_counts_their_prompts(experiment):
    path = written(experiment)
    assert "training.buckets of r: 3 sizes (height x width): 40x24, 32x32, 24x40" in invoke("config", "check", path)
    (found,) = image_sizes(make_preflight(path, None))
    assert (found.severity, found.what.partition(", of ")[2]) == ("fine", "6 prompts: 40x24 2, 32x32 2, 24x40 2")


def test_prompts_without_a_size_are_named_all_at_once_before_anything_starts(experiment):
    rows = [{"data_id": "a", "caption": "A star.", "width": 64}, {"data_id": "b", "caption": "A ring."},
            {"data_id": "c", "caption": "Rings.", "width": "64", "height": 0}]  # fmt: skip
    write_jsonl(experiment.folder / "unsized.jsonl", rows)
    path = written(experiment, "unsized", "unsized.jsonl")
    (experiment.folder / "lines.txt").write_text("A star.\nA ring.\n")
    out = ["--out", experiment.folder / "no.h5", "--heldout-out", experiment.folder / "no.jsonl"]
    for command in (["config", "check", path], ["caption", "prompts", "--config", path, *out]):
        told = str(CliRunner().invoke(app, [str(word) for word in command]).exception)
        for line, name, lacking in ((1, "a", "height"), (2, "b", "width and height"), (3, "c", "height")):
            assert f"unsized.jsonl:{line}: prompt {line} (data_id '{name}'): needs a whole number as {lacking}" in told
    assert not (experiment.folder / "no.h5").exists()
    (found,) = image_sizes(make_preflight(path, None))
    assert found.severity == "problem" and "size_by: draw" in found.fix
    with pytest.raises(DataError, match="a list of lines has no place; give a .jsonl"):
        sizes_of_prompts(experiment.folder / "lines.txt")
    drawn = written(experiment, "unsized", "unsized.jsonl", size_by="draw")
    assert "valid" in invoke("config", "check", drawn)


# Sizes of images.


def test_sizes_are_those_that_a_viewer_shows(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in ("jpg", "png", "webp", "tif"):
            Image.new("RGB", (30, 20)).save(tmp_path / f"{orientation}.{suffix}", exif=exif)
    items = list_images(tmp_path)
    found = sizes_of_images([item.image_id for item in items], items)
    assert found == {item.image_id: load_image(item.path).size for item in items} and len(found) == 32
    assert found["5.jpg"] == (20, 30) and found["3.png"] == (30, 20)
    write_sizes(tmp_path / "sizes.jsonl", found)
    assert read_sizes(tmp_path / "sizes.jsonl") == found
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError) as error:
        sizes_of_images(["1.jpg", "gone.png", "torn.png"], list_images(tmp_path))
    assert "gone.png: no such image any more" in str(error.value) and "torn.png: not a readable" in str(error.value)
    with pytest.raises(DataError, match="no such image file"):
        upright_size(tmp_path / "nothing.jpg")


def test_sizes_of_a_table_may_be_text(tmp_path):
    rows = [{"id": "a", "prompt": "A star.", "Width": "1024.0", "height": " 768 "}]
    write_csv_or_jsonl(tmp_path / "prompts.csv", rows)
    assert sizes_of_prompts(tmp_path / "prompts.csv") == {"a": (1024, 768)}


# Trainings.


@pytest.fixture(scope="module")
def one(experiment) -> tuple[Path, dict[str, set]]:
    """A run of two iterations in one go: its last checkpoint, and sizes of the images that got rewards by prompt."""
    seen, submit = defaultdict(set), LocalRewarder.submit

    def submitted(self, images, prompts, names):
        for image, prompt in zip(images, prompts, strict=True):
            seen[prompt.prompt_id].add(image.size)
        return submit(self, images, prompts, names)

    torch.set_num_threads(1)  # as `train_in_process` does for the others
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalRewarder, "submit", submitted)
        options = {"heldout": experiment.folder / "heldout.jsonl"}
        assert train_segment(experiment.segment("one", written(experiment), 2, **options))
    return experiment.folder / "one" / "2", seen


def test_all_images_of_a_prompt_have_the_bucket_of_its_image(one, train_in_process):
    folder, seen = one
    assert len(seen) == 6 and seen == {name: {size} for name, size in EXPECTED.items()}
    assert "image sizes file" in read_json(folder / "state" / "state.json")["digests"]


def test_an_interrupted_run_by_image_has_the_same_bytes(experiment, one, train_in_process):
    options = {"heldout": experiment.folder / "heldout.jsonl"}
    for to, resume in ((1, None), (2, experiment.folder / "parts" / "1")):
        assert train_segment(experiment.segment("parts", written(experiment), to, resume=resume, **options))
    folder = experiment.folder / "parts" / "2"
    assert same_bytes(folder, one[0]) == []
    assert metrics_without_times(folder) == metrics_without_times(one[0])[-1:]


def test_a_size_that_was_used_and_is_another_now_is_found(experiment, one, tmp_path):
    """One that stays in its bucket changes nothing."""
    config, captions = load_experiment(written(experiment)), tmp_path / "captions.h5"
    captions.write_bytes(experiment.captions.read_bytes())
    changed = dict(IMAGES) | {"a": (641, 480), "c": (64, 60)}
    write_sizes(tmp_path / "image_sizes.jsonl", changed)
    assert captions_problem(one[0], prompt_use(config, "r", captions)) is None
    write_sizes(tmp_path / "image_sizes.jsonl", changed | dict.fromkeys("abcdef", (10, 50)))
    assert "would use other prompts now" in captions_problem(one[0], prompt_use(config, "r", captions))
    write_sizes(tmp_path / "image_sizes.jsonl", {"a": (1, 1), "b": (1, 1)})
    with pytest.raises(DataError, match=r"has no size of c; make it again(.|\n)*has no size of d"):
        prompt_use(config, "r", captions)
    (tmp_path / "image_sizes.jsonl").unlink()
    with pytest.raises(DataError, match="image_sizes.jsonl: not there, and training.size_by: image"):
        prompt_use(config, "r", captions)


def test_the_plan_lists_the_sizes():
    run = RunPlan(
        "r", 1, "colocated", 1, 1, {}, [GpuMemory("trainer", {}, {"update": {}})], 0, [], 0.0, 1, "off", [], "phase",
        SIZES, UsualSize((32, 32), 1.0, 1),
    )  # fmt: skip
    told = "trains on images of 3 sizes (height x width), 40 x 24, 32 x 32, 24 x 40; on 32 x 32, as models.t2i has them"
    assert _usual_size(run).plain.startswith(told)
