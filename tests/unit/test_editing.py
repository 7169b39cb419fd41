"""Prompts with source images, from a file to captions, training and images, through the commands."""

from __future__ import annotations

import copy
import shutil
import signal
from pathlib import Path

import pytest
import tiny_edit
import tiny_vlm
import yaml
from forked import ended, run, start
from test_train_resume import wait_for_iteration
from tiny_experiment import TRAINING, metrics_without_times, same_bytes

from promptecho.benchmarks.heldout import write_heldout
from promptecho.captions.merge import MergeSpec, import_prompts
from promptecho.captions.sources import kept_sources, read_sources
from promptecho.captions.store import image_hashes, load_training_captions
from promptecho.config import load_experiment
from promptecho.config.families import family_named
from promptecho.config.inputs import inputs_of
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_jsonl, sha256_file, write_jsonl
from promptecho.text_files import TABLES
from promptecho.train.labels import prompt_use

SMALL = Path(__file__).with_name("small_edits.py")
COLOURS = ["red", "green", "blue", "black", "orange", "gray"]
SETS = {"images_per_prompt": 1, "guidance_scale": 2.0, "num_inference_steps": 2, "batch_size": 2, "seed": 5}


def write_edits(folder: Path, colours=COLOURS) -> Path:
    """edits.jsonl: the same instruction for several images, with labels that say what is wanted."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, colour in enumerate(colours):
        tiny_edit.picture(40 + 20 * (index % 3), 40, colour).save(folder / f"pictures/{colour}.png")
        text = "make it blue" if index % 2 else "make the circle blue"
        image = f"pictures/{colour}.png"
        rows.append({"data_id": f"e{index}", "caption": text, "image": image, "label": "A blue circle."})
    write_jsonl(folder / "edits.jsonl", rows)
    return folder / "edits.jsonl"


def content(folder: Path, **sections) -> dict:
    t2i = {"family": "qwenimage_edit", "path": str(tiny_edit.shared_folder()), "dtype": "float32"}
    training = copy.deepcopy(TRAINING) | {"iterations": 3, "checkpoints": [3], "images_per_prompt": 2, "passes": 1}
    training["sampling"] = {**training["sampling"], "num_inference_steps": 2, "guidance_scale": 2.0}
    return {
        "models": {
            "t2i": {**t2i, "height": 32, "width": 32},
            "vlm": {"path": str(tiny_vlm.shared_folder()), "dtype": "float32"},
        },
        "captions": {"prompts": str(folder / "edits.jsonl"), "heldout": 2},
        "rewards": [{"echo": {}, "label": str(folder / "edits.jsonl")}],
        "training": {**training, "heldout": {"prompts": 1, "every": 2}},
        "runs": {"r": {"seed": 1}},
        "image_sets": {"s": {"benchmark": "captions", "heldout": 2, **SETS}},
        **sections,
    }  # fmt: skip


def write_config(folder: Path, **sections) -> Path:
    (folder / "e.yaml").write_text(yaml.safe_dump(content(folder, **sections)))
    return folder / "e.yaml"


def spec_of(folder: Path, heldout: int = 0, **more) -> MergeSpec:
    return MergeSpec(folder / "captions.h5", folder / "heldout.jsonl", heldout, max_rejected_share=0.0, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An experiment whose captions were made by the command; its pictures are gone by then."""
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder)
    config = write_config(folder)
    out = ["--out", folder / "captions.h5", "--heldout-out", folder / "heldout.jsonl"]
    run(["caption", "prompts", "--config", config, *out])
    shutil.rmtree(folder / "pictures")
    return folder


def test_captions_keep_their_source_images(folder):
    """By content; one instruction is on both sides of the split, but no image is."""
    rows, hashes = load_training_captions(folder / "captions.h5"), dict(image_hashes(folder / "captions.h5"))
    sources, held = kept_sources(folder / "captions.h5"), read_jsonl(folder / "heldout.jsonl")
    assert len(rows) == 4 and len(held) == 2 and set(sources) == {row.prompt_id for row in rows}
    assert {row["caption"] for row in held} & {row.text for row in rows}
    assert all(sha256_file(source.path) == source.sha256 == hashes[name] for name, source in sources.items())
    held_sources = read_sources(folder / "heldout.jsonl")
    assert set(held_sources) == {row["data_id"] for row in held}
    assert not {one.sha256 for one in held_sources.values()} & set(hashes.values())


def test_what_an_iteration_has_used_includes_its_images(tmp_path):
    write_edits(tmp_path)
    config = load_experiment(write_config(tmp_path))
    import_prompts(tmp_path / "edits.jsonl", spec_of(tmp_path))
    before = prompt_use(config, "r", tmp_path / "captions.h5").of(0)
    for colour in COLOURS:
        tiny_edit.picture(50, 50, colour).save(tmp_path / f"pictures/{colour}.png")
    import_prompts(tmp_path / "edits.jsonl", spec_of(tmp_path))
    assert prompt_use(config, "r", tmp_path / "captions.h5").of(0) != before


def test_a_copy_that_is_gone_is_named(tmp_path):
    import_prompts(write_edits(tmp_path), spec_of(tmp_path))
    kept_sources(tmp_path / "captions.h5")["e2"].path.unlink()
    with pytest.raises(DataError, match=r"sources: the source images of 1 of 6 prompts are not there \(e2\)"):
        kept_sources(tmp_path / "captions.h5")


def refused(folder: Path, change, family: str | None = "qwenimage_edit") -> str:
    rows = read_jsonl(write_edits(folder))
    change(rows)
    write_jsonl(folder / "edits.jsonl", rows)
    with pytest.raises(DataError) as caught:
        spec = spec_of(folder, family=None if family is None else family_named(family))
        import_prompts(folder / "edits.jsonl", spec)
    assert not (folder / "captions.h5").exists() and not (folder / "heldout.jsonl").exists()
    return str(caught.value).replace(str(folder), "")


def test_prompts_that_do_not_fit_the_family_are_named_all_at_once(tmp_path):
    def without(rows):
        for row in (rows[1], rows[4]):
            del row["image"]

    told = "/edits.jsonl: 2 of 6 prompts have no source image, which Qwen-Image-Edit edits; give each an `image`:"
    assert refused(tmp_path, without) == f"{told}\n  e1\n  e4"
    assert refused(tmp_path, without, None) == told.replace("Qwen-Image-Edit edits", "the others have") + "\n  e1\n  e4"
    told = refused(tmp_path, without, "qwenimage")
    assert told.startswith("/edits.jsonl: 4 of 6 prompts have a source image, which Qwen-Image does not take; remove")
    assert told.splitlines()[1:] == ["  e0", "  e2", "  e3", "  e5"]


def test_images_that_cannot_be_used_are_named_all_at_once(tmp_path):
    def leading_out(rows):
        rows[0]["image"], rows[1]["image"], rows[2]["image"] = "../a.png", str(tmp_path / "pictures/red.png"), 7

    told = refused(tmp_path, leading_out)
    assert [line.split(":")[1] for line in told.splitlines()] == ["1", "2", "3"]
    assert "image '../a.png': give a path below the folder of edits.jsonl" in told

    def missing(rows):
        rows[3]["image"], rows[5]["image"] = "pictures/none.png", "pictures/nowhere.png"

    told = refused(tmp_path, missing)
    assert "e3: /pictures/none.png: cannot read" in told and "e5: /pictures/nowhere.png: cannot read" in told

    def unfit(rows):
        (tmp_path / "pictures/red.png").write_text("no picture")
        tiny_edit.picture(500, 20).save(tmp_path / "pictures/green.png")

    told = refused(tmp_path, unfit)
    assert "e0: /pictures/red.png: " in told and "e1: /pictures/green.png: 500 x 20 pixels: one side is more" in told


def test_an_experiment_that_leaves_it_without_images_is_refused_before_anything_starts(tmp_path):
    write_edits(tmp_path)
    raw = content(tmp_path)
    raw["captions"] = {"images": "photographs", "heldout": 2}
    raw["runs"]["r"]["zero_stage"] = 3
    raw["image_sets"]["g"] = {"benchmark": "geneval", "prompts": "p.jsonl"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as caught:
        load_experiment(tmp_path / "e.yaml")
    told = str(caught.value)
    files = " or ".join(TABLES)
    assert f"captions.prompts: Qwen-Image-Edit edits images: name a {files} file of instructions, each with an" in told
    takers = "take captions"
    assert f"image_sets.g.benchmark: Qwen-Image-Edit edits images, and prompts of geneval have none; {takers}" in told
    assert "training.zero_stage: 3 does not go with Qwen-Image-Edit" in told


def test_images_are_inputs_of_a_family_that_edits_alone(tmp_path):
    write_edits(tmp_path)
    config = load_experiment(write_config(tmp_path))
    found = inputs_of(config, "merge")
    assert found["image 1 of captions.prompts"] == str(tmp_path / "pictures/red.png") and len(found) == 1 + 6
    t2i = config.models.t2i.model_copy(update={"family": "qwenimage"})
    other = config.model_copy(update={"models": config.models.model_copy(update={"t2i": t2i})})
    assert list(inputs_of(other, "merge")) == ["captions.prompts"]


def train_arguments(folder: Path, name: str) -> list:
    return [
        "train", "--config", folder / "e.yaml", "--run", "r", "--to", "3", "--captions", folder / "captions.h5",
        "--heldout", folder / "heldout.jsonl", "--out", folder / name / "3", "--work", folder / name / "work",
        "--threads", "1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def straight(folder) -> Path:
    assert "checkpoint 3 in" in run(train_arguments(folder, "straight"), script=SMALL)
    return folder / "straight/3"


def test_a_run_trains_on_edits_and_ends_with_the_same_bits_after_a_kill(folder, straight):
    process = start(train_arguments(folder, "killed"), script=SMALL)
    wait_for_iteration(process, folder / "killed/work", 1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    run(train_arguments(folder, "killed"), script=SMALL)
    assert same_bytes(straight, folder / "killed/3") == []
    rows = metrics_without_times(straight)
    assert rows == metrics_without_times(folder / "killed/3") and [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert all(row["reward_mean"] < 0 for row in rows[1:]) and "heldout_reward" in rows[2]


def test_images_are_made_of_prompts_and_sources_and_again_of_a_changed_source(folder, straight):
    """Two prompts; one source image changes, and its image alone is made again."""
    prompts = folder / "prompts/metadata.jsonl"
    write_heldout(folder / "heldout.jsonl", 2, prompts)
    arguments = [
        "generate", "--config", folder / "e.yaml", "--run", "r", "--step", "3", "--adapter", straight / "adapter",
        "--image-set", "s", "--prompts", prompts, "--shard", "0", "--num-shards", "1", "--out", folder / "images",
        "--work", folder / "images-work", "--threads", "1",
    ]  # fmt: skip
    run(arguments, script=SMALL)
    first = {row["prompt_id"]: row["sha256"] for row in read_jsonl(folder / "images/shards/0.jsonl")}
    assert len(set(first.values())) == 2
    said = run(arguments, script=SMALL)
    assert "loaded" not in said
    changed, kept = sorted(first)
    rows = read_jsonl(prompts)
    for row in rows:
        if row["data_id"] == changed:
            tiny_edit.picture(70, 40, "purple").save(prompts.parent / "sources/new.png")
            row["image"] = "sources/new.png"
    write_jsonl(prompts, rows)
    assert "1 already done" in run(arguments, script=SMALL)
    again = {row["prompt_id"]: row["sha256"] for row in read_jsonl(folder / "images/shards/0.jsonl")}
    assert again[kept] == first[kept] and again[changed] != first[changed]
    del rows[0]["image"]
    write_jsonl(prompts, rows)
    told = ended(arguments, script=SMALL, code=1)[1]
    lacking = "1 of 2 prompts has no source image, which Qwen-Image-Edit edits; give each an `image`:"
    assert lacking in told and told.endswith(f"  {rows[0]['data_id']}\n")


def test_the_example_of_the_page_is_a_whole_experiment(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/editing.md").read_text()
    (tmp_path / "e.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    config = load_experiment(tmp_path / "e.yaml")
    assert config.models.t2i.family == "qwenimage_edit" and config.rewards[0].label == config.captions.prompts
