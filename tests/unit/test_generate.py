"""Images of a checkpoint: shards, kills, adapters, and the layout that the evaluator reads."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_t2i
import torch
from forked import run, start
from PIL import Image
from tiny_experiment import Experiment

from promptecho.benchmarks.captions import layout as captions_layout
from promptecho.benchmarks.captions import prompts as captions_prompts
from promptecho.benchmarks.geneval.layout import list_images
from promptecho.benchmarks.geneval.prompts import read_prompts
from promptecho.benchmarks.geneval.shapes import geneval_prompts
from promptecho.config import load_experiment
from promptecho.config.training_parts import LoraSection
from promptecho.errors import ConfigError, DataError, OutOfMemoryError
from promptecho.files import read_jsonl, write_json, write_jsonl
from promptecho.generate import GenerateJob, generate_shard
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.t2i.zimage.model import ZImage

torch.set_num_threads(1)  # tiny matrices; more threads only get in each other's way
IMAGES = 3
SET = {"benchmark": "geneval", "images_per_prompt": IMAGES, "guidance_scale": 1.0, "num_inference_steps": 3,
       "batch_size": 4, "seed": 5}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("generate"))
    write_jsonl(experiment.folder / "metadata.jsonl", geneval_prompts(1, 0)[:4])
    return experiment


def write_config(experiment: Experiment, name: str = "exp", **changes) -> Path:
    image_set = {**SET, "prompts": str(experiment.folder / "metadata.jsonl"), **changes}
    return experiment.config(name, sections={"image_sets": {"s": image_set}})


@pytest.fixture(scope="module")
def config(experiment) -> Path:
    return write_config(experiment)


def job(experiment, config: Path, name: str, **changes) -> GenerateJob:
    settings = {
        "config": load_experiment(config), "run": "base", "step": 0, "image_set": "s",
        "prompts": experiment.folder / "metadata.jsonl", "shard": 0, "num_shards": 1,
        "out": experiment.folder / name, "work": experiment.folder / f"{name}-work",
    }  # fmt: skip
    return GenerateJob(**{**settings, **changes})


def pictures(folder: Path) -> dict[str, np.ndarray]:
    paths = sorted(folder.glob("*/samples/*.png"))
    return {str(p.relative_to(folder)): np.asarray(Image.open(p)).astype(int) for p in paths}


def png_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("*/samples/*.png"))}


def recorded(work: Path) -> list[dict]:
    """What a shard's journal tells, behind its first line."""
    lines = [line for path in (work / "done").glob("*.jsonl") for line in path.read_text().splitlines(True)[1:]]
    return [image for line in lines if line.endswith("\n") for image in json.loads(line)["images"]]


@pytest.fixture(scope="module")
def whole(experiment, config) -> Path:
    """The base model's images, in one shard."""
    generate_shard(job(experiment, config, "whole"))
    return experiment.folder / "whole"


@pytest.fixture(scope="module")
def adapter(experiment) -> Path:
    """An adapter with random weights, hence with an effect."""
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.2 * torch.randn(p.shape, generator=generator) for name, p in trained_parameters(model).items()}
    save_adapter(model, weights, experiment.folder / "adapter", family.descriptor)
    return experiment.folder / "adapter"


def test_the_evaluator_reads_the_layout(experiment, whole):
    prompts = read_prompts(experiment.folder / "metadata.jsonl")
    entries = list_images(whole, prompts, IMAGES)
    assert len(entries) == 4 * IMAGES and all(Image.open(e.path).size == (32, 32) for e in entries)
    assert len(set(png_bytes(whole).values())) == 4 * IMAGES  # all different: prompt and index both count
    rows = read_jsonl(whole / "shards" / "0.jsonl")
    assert [(row["prompt_id"], row["image_index"]) for row in rows] == [(e.prompt_id, e.image_index) for e in entries]
    assert rows[0]["filename"] == "00000/samples/00000.png" and rows[0]["prompt"] == prompts[0].prompt


def test_an_image_set_may_have_a_size_of_its_own(experiment, whole):
    config = write_config(experiment, "wide", width=48, images_per_prompt=1, num_inference_steps=1)
    generate_shard(job(experiment, config, "wide"))
    sizes = {Image.open(path).size for path in (experiment.folder / "wide").glob("*/samples/*.png")}
    assert sizes == {(48, 32)} and {Image.open(path).size for path in whole.glob("*/samples/*.png")} == {(32, 32)}
    odd = write_config(experiment, "odd", height=33)
    with pytest.raises(ConfigError, match=r"image_sets\..*height: 33 x 32 pixels: both must be multiples of 8"):
        job(experiment, odd, "odd")


def test_a_published_adapters_own_schedule_holds_for_its_images_alone(experiment, adapter):
    """In its entry or in the image set: the same images; and work done under the other schedule is not taken up."""
    few = {"images_per_prompt": 1, "prompts": str(experiment.folder / "metadata.jsonl")}
    images = {}
    for name, entry, more in (
        ("plain", {}, {}), ("own", {"schedule": "scheduler"}, {}), ("set", {}, {"schedule": "scheduler"}),
    ):  # fmt: skip
        sections = {"image_sets": {"s": {**SET, **few, **more}}, "runs": {"authors": {"adapter": "x/y", **entry}}}
        path = experiment.config(f"published-{name}", sections=sections)
        work = experiment.folder / ("published-work" if name != "set" else "published-set-work")
        generate_shard(job(experiment, path, f"published-{name}", run="authors", step=1, adapter=adapter, work=work))
        images[name] = png_bytes(experiment.folder / f"published-{name}")
    assert images["own"] == images["set"] and images["own"].keys() == images["plain"].keys()
    assert all(images["own"][key] != images["plain"][key] for key in images["own"])


@pytest.mark.parametrize("num_shards", [2, 5])
def test_images_do_not_depend_on_the_number_of_shards(experiment, config, whole, num_shards):
    name = f"shards-{num_shards}"
    for shard in range(num_shards):
        work = experiment.folder / name / "work" / str(shard)
        generate_shard(job(experiment, config, name, shard=shard, num_shards=num_shards, work=work))
    list_images(experiment.folder / name, read_prompts(experiment.folder / "metadata.jsonl"), IMAGES)
    found, expected = pictures(experiment.folder / name), pictures(whole)
    assert found.keys() == expected.keys()
    # Other neighbours in a batch change the last float digits, which may tip a pixel to the next grey level.
    assert all(np.abs(found[key] - expected[key]).max() <= 1 for key in expected)
    rows = [row for k in range(num_shards) for row in read_jsonl(experiment.folder / name / "shards" / f"{k}.jsonl")]
    assert sorted(row["filename"] for row in rows) == sorted(expected)


def kill_twice(experiment, config, out, work, within_s):
    """Start generation twice and kill it, at a random moment of `within_s` after a batch was recorded; what has its
    final name is whole then. Returns the command's arguments."""
    arguments = [
        "generate", "--config", str(config), "--run", "base", "--step", "0", "--image-set", "s",
        "--prompts", str(experiment.folder / "metadata.jsonl"), "--out", str(out), "--work", str(work),
        "--threads", "1",
    ]  # fmt: skip
    for batches, number in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
        process = start(arguments)
        while len(recorded(work)) < 4 * batches:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        time.sleep(random.random() * within_s)
        process.send_signal(number)
        process.communicate()
        for path in out.glob("*/samples/*.png"):  # what has its final name is whole
            Image.open(path).load()
    return arguments


def test_killed_and_started_again_it_ends_with_the_same_bytes_and_repeats_nothing(experiment, config, whole):
    out, work = experiment.folder / "killed", experiment.folder / "killed-work"
    arguments = kill_twice(experiment, config, out, work, within_s=0.2)
    done = len(recorded(work))
    first = sorted(out.glob("*/samples/*.png"))[:done]
    times = {path: path.stat().st_mtime_ns for path in first}
    assert len(first) >= 8
    stderr = run(arguments)
    if done < 12:
        assert f"12 images, {done} already done" in stderr
    assert png_bytes(out) == png_bytes(whole)
    assert (out / "shards" / "0.jsonl").read_bytes() == (whole / "shards" / "0.jsonl").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in times} == times


def generate_again(experiment, config, whole_copy: str, capsys, **changes) -> str:
    capsys.readouterr()
    generate_shard(job(experiment, config, whole_copy, **changes))
    return capsys.readouterr().err


def test_only_what_changed_is_generated_again(experiment, config, adapter, capsys):
    said = generate_again(experiment, config, "again", capsys, run="r", step=2, adapter=adapter)
    assert "12 images, 0 already done" in said
    before = png_bytes(experiment.folder / "again")
    assert "already done" not in generate_again(experiment, config, "again", capsys, run="r", step=2, adapter=adapter)
    # A damaged or missing image costs its batch, and comes back as it was.
    (experiment.folder / "again/00000/samples/00001.png").write_bytes(b"x")
    (experiment.folder / "again/00003/samples/00002.png").unlink()
    said = generate_again(experiment, config, "again", capsys, run="r", step=2, adapter=adapter)
    assert "12 images, 4 already done" in said and png_bytes(experiment.folder / "again") == before
    # The same place with other settings, or with another adapter (a run that was trained anew): everything.
    other = write_config(experiment, "other", guidance_scale=2.0)
    said = generate_again(experiment, other, "again", capsys, run="r", step=2, adapter=adapter)
    assert "12 images, 0 already done" in said and png_bytes(experiment.folder / "again") != before
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 2, family.lora_targets)
    save_adapter(model, {n: p.detach() for n, p in trained_parameters(model).items()}, experiment.folder / "new",
                 family.descriptor)  # fmt: skip
    said = generate_again(experiment, other, "again", capsys, run="r", step=2, adapter=experiment.folder / "new")
    assert "12 images, 0 already done" in said


def test_a_limit_makes_some_images_and_its_end_the_others_alone(experiment, config, whole, capsys):
    """Raised, lifted and lowered: none is made twice, and none is lost."""

    def limited(limit):
        image_set = {**SET, "prompts": str(experiment.folder / "metadata.jsonl")}
        benchmark = {"image_set": "s", "scorer": "geneval", "backend": "mask2former", "limit": limit}
        return experiment.config(f"limit-{limit or 0}", sections={"image_sets": {"s": image_set},
                                                             "benchmarks": {"geneval": benchmark}})  # fmt: skip

    said = generate_again(experiment, limited(2), "grown", capsys)
    assert "6 images, 0 already done" in said and len(png_bytes(experiment.folder / "grown")) == 6
    assert len(read_jsonl(experiment.folder / "grown/shards/0.jsonl")) == 6
    assert "already done" not in generate_again(experiment, limited(2), "grown", capsys)
    before = png_bytes(experiment.folder / "grown")
    assert "9 images, 6 already done" in generate_again(experiment, limited(3), "grown", capsys)
    assert "12 images, 9 already done" in generate_again(experiment, limited(None), "grown", capsys)
    after = png_bytes(experiment.folder / "grown")
    assert before.items() <= after.items() and after.keys() == png_bytes(whole).keys()
    assert "already done" not in generate_again(experiment, limited(2), "grown", capsys)
    assert png_bytes(experiment.folder / "grown") == after
    assert "already done" not in generate_again(experiment, config, "grown", capsys)
    expected = pictures(whole)
    found = pictures(experiment.folder / "grown")
    assert all(np.abs(image - expected[name]).max() <= 1 for name, image in found.items())


def test_the_adapter_acts_at_full_strength(experiment, config, whole, adapter):
    """The images are those of the plain diffusers pipeline with the adapter loaded by its own loader."""
    from diffusers import ZImagePipeline

    from promptecho.train.data import normal

    generate_shard(job(experiment, config, "adapted", run="r", step=2, adapter=adapter))
    found, base = pictures(experiment.folder / "adapted"), pictures(whole)
    pipeline = ZImagePipeline.from_pretrained(tiny_t2i.shared_folder())
    pipeline.load_lora_weights(adapter, weight_name="pytorch_lora_weights.safetensors")
    prompt = read_prompts(experiment.folder / "metadata.jsonl")[1].prompt
    image = pipeline(
        prompt=[prompt], height=32, width=32, num_inference_steps=3, guidance_scale=1.0,
        latents=normal((4, 8, 8), 5, "generate", "00001", 2)[None],
    ).images[0]  # fmt: skip
    key = "00001/samples/00002.png"
    assert np.abs(found[key] - np.asarray(image).astype(int)).max() <= 1
    assert np.abs(found[key] - base[key]).max() > 4


def test_the_base_model_has_no_adapter_and_every_run_has_one(experiment, config, adapter, tmp_path):
    for changes in ({"adapter": adapter}, {"run": "r", "step": 2}):
        with pytest.raises(ConfigError, match="the base model has no --adapter, every other run needs one"):
            generate_shard(job(experiment, config, "x", **changes))
    with pytest.raises(ConfigError, match="image_sets.t: no such entry .known: s."):
        generate_shard(job(experiment, config, "x", image_set="t"))
    with pytest.raises(ConfigError, match="--shard 2: must be below --num-shards 2"):
        generate_shard(job(experiment, config, "x", shard=2, num_shards=2))
    with pytest.raises(DataError, match="nowhere"):
        generate_shard(job(experiment, config, "x", run="r", adapter=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nothing.jsonl: no such file"):
        generate_shard(job(experiment, config, "x", prompts=tmp_path / "nothing.jsonl"))
    assert not (experiment.folder / "x").exists()


def test_an_adapter_of_another_model_is_one_line(experiment, tmp_path, adapter):
    other = Experiment(tmp_path / "other", t2i=tiny_t2i.build(tmp_path / "t2i", layers=3))
    config = write_config(other, prompts=str(experiment.folder / "metadata.jsonl"))
    with pytest.raises(DataError, match="the adapter does not fit this text-to-image model") as caught:
        generate_shard(job(experiment, config, "misfit", run="r", adapter=adapter))
    assert "\n" not in str(caught.value) and not (experiment.folder / "misfit" / "shards").exists()


def test_a_diverged_adapter_is_named_by_its_first_image(experiment, config):
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    nan = {name: torch.full_like(p, float("nan")) for name, p in trained_parameters(model).items()}
    folder = experiment.folder / "nan" / "adapter"
    save_adapter(model, nan, folder, family.descriptor)
    says = "prompt 00000 image 0: the model's latents are not finite; the adapter"
    for place, content, suspect in (
        (folder / "source.json", {"source": "owner/name"}, "from owner/name may be meant for another model"),
        (folder.parent / "metrics.jsonl", {}, f"may have diverged, look at {folder.parent / 'metrics.jsonl'}"),
    ):
        write_jsonl(place, [content])
        with pytest.raises(DataError, match=f"{says} {suspect}"):
            generate_shard(job(experiment, config, "diverged", run="r", adapter=folder))
    assert not list((experiment.folder / "diverged").glob("*/samples/*.png"))


def test_a_caption_set_has_the_layout_of_densealignbench_and_noise_by_id(experiment):
    """Several shards, several images per prompt, an id that is a path; noise follows the id, not the place."""
    rows = [{"data_id": name, "caption": f"a {color} ring"} for name, color in (("../x", "red"), ("y", "blue"))]
    write_jsonl(experiment.folder / "captions.jsonl", rows)
    changes = {"benchmark": "captions", "prompts": str(experiment.folder / "captions.jsonl"), "images_per_prompt": 2}
    config = write_config(experiment, "captions", **changes)
    out, prompts = experiment.folder / "caption-set", experiment.folder / "captions.jsonl"
    for shard in (1, 0):
        assert not (out / "metadata.jsonl").exists()
        work = experiment.folder / "caption-set-work" / str(shard)
        generate_shard(job(experiment, config, "caption-set", prompts=prompts, shard=shard, num_shards=2, work=work))
    entries = captions_layout.list_images(out, captions_prompts.read_prompts(prompts), 2)
    names = ["00000_00000.png", "00000_00001.png", "00001_00000.png", "00001_00001.png"]
    assert [entry.path.name for entry in entries] == names
    assert sorted(path.name for path in out.iterdir()) == [*names, "metadata.jsonl", "shards"]
    assert read_jsonl(out / "metadata.jsonl")[1] == {**rows[0], "filename": names[1]}
    assert [row["filename"] for row in read_jsonl(out / "shards/1.jsonl")] == names[1::2]
    assert read_jsonl(out / "shards/0.jsonl")[0]["prompt_id"] == "../x"
    assert len({path.read_bytes() for path in out.glob("*.png")}) == 4
    write_jsonl(prompts, rows[1:])
    generate_shard(job(experiment, config, "caption-second", prompts=prompts))
    first, second = ([np.asarray(Image.open(out.parent / path)).astype(int) for path in paths]
                     for paths in ([f"caption-set/{name}" for name in names[2:]],
                                   [f"caption-second/{name}" for name in names[:2]]))  # fmt: skip
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(first, second, strict=True))


def test_batches_hold_prompts_of_one_length_and_do_not_depend_on_what_is_done(
    experiment, tmp_path, monkeypatch, capsys
):
    """Long and short prompts in turn: each image is made beside others of its length; taken up again, none is made
    twice, whatever batches the records are of."""
    rows = geneval_prompts(1, 0)[:4]
    for row in rows[::2]:
        row["prompt"] = " ".join([row["prompt"]] * 6)
    prompts = tmp_path / "metadata.jsonl"
    write_jsonl(prompts, rows)
    passes: list[list[int]] = []
    sample = ZImage.sample
    monkeypatch.setattr(ZImage, "sample", lambda *given, **more: passes.append([len(c) for c in given[2]])
                        or sample(*given, **more))  # fmt: skip
    config = write_config(experiment, "lengths", prompts=str(prompts))
    generate_shard(job(experiment, config, "lengths", prompts=prompts))
    assert [[length > 32 for length in one] for one in passes] == [[False] * 4, [False] * 2 + [True] * 2, [True] * 4]
    before, listing = png_bytes(experiment.folder / "lengths"), experiment.folder / "lengths/shards/0.jsonl"
    assert [row["prompt_id"] for row in read_jsonl(listing)] == [f"{p:05}" for p in range(4) for _ in range(IMAGES)]
    # The records of a version that made batches in the order of the prompts.
    done = experiment.folder / "lengths-work" / "done"
    made = {(row["prompt_id"], row["image_index"]): row for row in recorded(done.parent)}
    (recipe,) = [json.loads(path.read_text().splitlines()[0]) for path in done.iterdir()]
    shutil.rmtree(done)
    for k in range(2):
        write_json(done / f"{k:06}.json", {**recipe, "images": [made[key] for key in sorted(made)[4 * k : 4 * k + 4]]})
    said = generate_again(experiment, config, "lengths", capsys, prompts=prompts)
    assert "12 images, 8 already done" in said and png_bytes(experiment.folder / "lengths").keys() == before.keys()
    assert "already done" not in generate_again(experiment, config, "lengths", capsys, prompts=prompts)


def test_what_cannot_be_written_is_told_with_its_prompt_and_keeps_what_is_done(
    experiment, config, whole, capsys, monkeypatch
):
    out = experiment.folder / "blocked"
    out.mkdir()
    (out / "00002").write_text("no folder")
    with pytest.raises(DataError, match="prompt 00002 image 0: .*00000.png: cannot write") as caught:
        generate_shard(job(experiment, config, "blocked"))
    assert "\n" not in str(caught.value) and not (out / "shards").exists() and not list(out.rglob("*.tmp"))
    (out / "00002").unlink()

    def no_room(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 3.00 MiB")

    with monkeypatch.context() as patched:
        patched.setattr(PIL.Image.Image, "save", no_room)
        told = "out of memory on cpu in phase save, prompt 00001 image 1: .* lower image_sets.s.batch_size .4."
        with pytest.raises(OutOfMemoryError, match=told):
            generate_shard(job(experiment, config, "blocked"))
    assert "12 images, 4 already done" in generate_again(experiment, config, "blocked", capsys)
    assert png_bytes(out) == png_bytes(whole)
