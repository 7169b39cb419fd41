"""What reruns: digests and younger keys, changed keys in words, inputs by content, old runs moved aside."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptecho import file_hashes
from promptecho.cli import app
from promptecho.config import load_experiment, parse_experiment, slice_digest, slices
from promptecho.config.changes import assignments, changes, record_slice, recorded_slice
from promptecho.config.inputs import Inputs, inputs_of
from promptecho.config.models import ExperimentConfig
from promptecho.config.reruns import (
    Conflict,
    finished_checkpoints,
    named_runs,
    refusal,
    set_captions_aside,
    set_run_aside,
    state_digests,
)
from promptecho.config.resolve import split_site
from promptecho.config.slices import slice_value
from promptecho.errors import ConfigError, DataError
from promptecho.file_hashes import FileHashes
from promptecho.files import digest, write_json

SHAPES = Path(__file__).parents[2] / "config/experiments/shapes.yaml"
RAW = {
    "experiment": "e",
    "models": {"t2i": {"path": "shapes", "dtype": "float32"}, "vlm": {"path": "shapes", "dtype": "float32"}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
    "training": {"iterations": 4, "checkpoints": [2, 4]},
    "runs": {"a": {"seed": 1}, "b": {"seed": 2, "rewards": [{"name": "inferscore"}]}, "theirs": {"adapter": "x/y"}},
    "judges": {"models": {"one": {"kind": "openai", "model": "m", "endpoint": "http://127.0.0.1:9/v1"}}},
    "image_sets": {"s": {"benchmark": "captions", "heldout": 6}},
    "benchmarks": {"dense": {"image_set": "s", "scorer": "densealign", "backend": "judge", "judge": "one"}},
}
# Every kind of place, and a stage whose digest its value decides.
PLACES = {
    "captions.temperature": ("caption", {}),
    "captions.max_words": ("merge", {}),
    "captions.shapes.seed": ("images", {}),
    "models.t2i.negative_prompt": ("generate", {"image_set": "s"}),
    "models.vlm.trust_remote_code": ("caption", {}),
    "training.learning_rate": ("train", {"run": "a"}),
    "training.lora.rank": ("train", {"run": "a"}),
    "training.kl_base.weight": ("train", {"run": "b"}),
    "rewards.weight": ("train", {"run": "a"}),
    "rewards.inferscore.samples": ("train", {"run": "b"}),
    "image_sets.guidance_scale": ("generate", {"image_set": "s"}),
    "benchmarks.mode": ("score", {"benchmark": "dense"}),
    "judges.models.temperature": ("score", {"benchmark": "dense"}),
    "adapters.step": ("adapter", {"run": "theirs"}),
}


def default_at(dotted: str):
    """The value of RAW's experiment at a place without names of entries."""
    config = parse_experiment(RAW).model_dump(mode="json")
    config["rewards"] = config["runs"]["b"]["rewards"][0]
    config["rewards"]["inferscore"] = {"samples": 1}
    for section, name in {"image_sets": "s", "benchmarks": "dense", "adapters": "theirs"}.items():
        config[section] = config[section][name]
    config["judges"]["models"] = config["judges"]["models"]["one"]
    value = config
    for part in dotted.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("dotted", PLACES)
def test_a_younger_key_counts_only_away_from_its_former_value(monkeypatch, dotted):
    """As if each of these keys had come after the results: at the former value it is not in the slice at all."""
    stage, names = PLACES[dotted]
    config, younger = parse_experiment(RAW), slices.FORMER_BEHAVIOUR
    before = slice_value(config, stage, **names)
    last = dotted.rpartition(".")[2]
    monkeypatch.setattr(slices, "FORMER_BEHAVIOUR", {**younger, dotted: default_at(dotted)})
    without = slice_value(config, stage, **names)
    assert without != before and json.dumps(before).count(f'"{last}"') > json.dumps(without).count(f'"{last}"')
    monkeypatch.setattr(slices, "FORMER_BEHAVIOUR", {**younger, dotted: "another value"})
    assert slice_value(config, stage, **names) == before
    misplaced = {f"no.such.{last}": default_at(dotted), f"{dotted}.deeper": 1}
    monkeypatch.setattr(slices, "FORMER_BEHAVIOUR", {**younger, **misplaced})
    assert slice_value(config, stage, **names) == before


def trained(runs=None, **training) -> ExperimentConfig:
    models = {"t2i": {"path": "m/t2i", "dtype": "float32"}, "vlm": {"path": "m/vlm"}}
    captions = {"prompts": "p.txt", "heldout": 8}
    training, runs = {**RAW["training"], **training}, {**RAW["runs"], **(runs or {})}
    raw = {**RAW, "models": models, "captions": captions, "training": training, "runs": runs}
    return parse_experiment(raw)


def test_keys_of_another_algorithm_count_for_nothing():
    plain = slice_value(trained(), "train", "a")
    assert not {"algorithm", "nft", "grpo"} & plain["training"].keys()
    assert slice_value(trained(nft={"beta": 0.1}, grpo={"noise_level": 0.5}), "train", "a") == plain
    nft = slice_value(trained(algorithm="nft", grpo={"noise_level": 0.5}), "train", "a")
    assert nft["training"] == {**plain["training"], "algorithm": "nft"}
    ocr = slice_value(trained(algorithm="nft", nft={"beta": 0.1}), "train", "a")
    assert ocr["training"] == {**nft["training"], "nft": {"beta": 0.1}}
    assert list(map(str, changes("train", nft, ocr))) == ["training.nft.beta (was 1.0, now 0.1)"]


def test_an_own_size_that_is_the_models_is_none():
    plain = slice_value(trained(), "train", "a")
    side = plain["models"]["t2i"]["height"]
    size = {"height": side, "width": side}
    for own in (size, {"height": side}):
        assert slice_value(trained(**own), "train", "a") == plain
    for own in ({"height": 16}, {"sizes": [size, {"height": 16, "width": 16}]}):
        assert slice_value(trained(**own), "train", "a") != plain


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"finetuning": "full"}, {"training.finetuning"}),
        ({}, {"init_adapter": "theirs"}, {"training.init_adapter"}),
        ({"init_adapter": "a@2"}, {"init_adapter": "a@4"}, {"training.init_adapter"}),
        ({"init_adapter": "theirs"}, {"init_adapter": "a@4"}, {"training.init_adapter"}),
        ({"init_adapter": "theirs"}, {}, {"training.init_adapter"}),
        ({}, {"height": 512}, {"training.height"}),
        ({"height": 512}, {}, {"training.height"}),
        ({}, {"sizes": [{"height": 512, "width": 768}, {"height": 768, "width": 512}]}, {"training.sizes"}),
        ({}, {"lr_schedule": "cosine"}, {"training.lr_schedule", "training.lr_decay_iterations"}),
        ({}, {"lora": {"target_modules": ["to_q", "to_k"]}}, {"training.lora.target_modules"}),
        ({}, {"algorithm": "nft", "nft": {"beta": 0.1}}, {"training.algorithm", "training.nft.beta"}),
    ],
)
def test_a_new_run_takes_the_changes_as_the_refusal_tells_them(before, after, told):
    now = trained({"r": after})
    found = changes("train", slice_value(trained({"r": before}), "train", "r"), slice_value(now, "train", "r"))
    assert {change.path for change in found if not change.gone} == told
    texts = assignments(found, now.runs["r"])
    _, settings = split_site({"experiments": ["e"], "set": " ".join(f"e.runs.NEW.{text}" for text in texts)})
    new: dict = {}
    for dotted, value in settings["e"]:
        holder, (*parents, last) = new, dotted.split(".")[2:]
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = value
    assert slice_value(trained({"r": before, "new": new}), "train", "new") == slice_value(now, "train", "r")


@pytest.mark.parametrize(
    ("init_adapter", "entry", "told"),
    [
        ("p@2", {"p": {"seed": 5}}, "settings of the run that training.init_adapter names"),
        ("p", {"p": {"adapter": "x/y", "alpha": 4.0}}, "training.init_adapter.alpha"),
        ("p", {"p": {"adapter": "x/z"}}, "training.init_adapter.adapter"),
    ],
)
def test_a_new_run_does_not_keep_what_an_initial_adapter_was(init_adapter, entry, told):
    before = {"p": {}} if "@" in init_adapter else {"p": {"adapter": "x/y"}}
    sides = [trained({**runs, "r": {"init_adapter": init_adapter}}) for runs in (before, entry)]
    found = changes("train", *(slice_value(side, "train", "r") for side in sides))
    assert [change.path for change in found] == [told] and assignments(found, sides[1].runs["r"]) == []


def test_former_values_are_those_of_keys_that_exist():
    raw = RAW | {"rewards": [{"name": "echo", "echo": {"reduction": "mean"}}]}
    for dotted in slices.FORMER_BEHAVIOUR:
        assert _has(parse_experiment(raw).model_dump(mode="json"), dotted.split(".")), f"{dotted}: no such key"


def _has(value, parts: list[str]) -> bool:
    if not parts:
        return True
    if isinstance(value, list):
        return any(_has(entry, parts) for entry in value)
    if not isinstance(value, dict):
        return value is None  # a section that is null here
    if parts[0] in value:
        return _has(value[parts[0]], parts[1:])
    return any(_has(entry, parts) for entry in value.values() if isinstance(entry, dict))


def test_changed_keys_are_named_as_they_are_written(monkeypatch):
    config = parse_experiment(RAW)
    raw = json.loads(json.dumps(RAW))
    raw["training"] |= {"learning_rate": 1e-3, "lora": {"target_modules": ["to_q"]}}
    raw["captions"]["query"] = "What?"
    raw["rewards"] = [{"weight": 2.0}]
    raw["models"]["vlm"]["dtype"] = "bfloat16"
    found = changes("train", slice_value(config, "train", "a"), slice_value(parse_experiment(raw), "train", "a"))
    assert {change.path: (change.old, change.new) for change in found} == {
        "training.learning_rate": ("5e-05", "0.001"),
        "training.lora.target_modules": ("null", "['to_q']"),
        "captions.query": ("Describe this image in detail.", "What?"),
        "rewards.0.weight": ("1.0", "2.0"),
        "models.vlm.dtype": ("float32", "bfloat16"),
    }
    assert str(found[0]).count("(was ") == 1
    old, new = slice_value(config, "train", "a"), slice_value(config, "train", "a")
    new["version"] += 1
    assert [change.path for change in changes("train", old, new)] == ["version of the training"]
    del old["training"]["weighting"]
    monkeypatch.setitem(slices.FORMER_BEHAVIOUR, "training.weighting", "uniform")
    assert [str(change) for change in changes("train", old, slice_value(config, "train", "a"))] == [
        "training.weighting (was uniform, now ghuber)"
    ]


def test_the_configuration_that_made_a_result_is_found(tmp_path):
    from promptecho.config import write_resolved

    config = parse_experiment(RAW)
    value = slice_value(config, "train", "a")
    assert recorded_slice(tmp_path, "train", "a", digest(value)) is None
    write_resolved(config, tmp_path)
    (tmp_path / "0123456789abcdef.yaml").write_text("of: another version\n")
    assert recorded_slice(tmp_path, "train", "a", digest(value)) == value
    for file in tmp_path.glob("*.yaml"):
        file.unlink()
    record_slice(tmp_path, value)
    assert recorded_slice(tmp_path, "train", "a", digest(value)) == value
    (tmp_path / f"slices/{digest(value)}.json").write_text("{}")
    assert recorded_slice(tmp_path, "train", "a", digest(value)) is None


def checkpoint(results: Path, run: str, step: int, made: str = "0123456789abcdef") -> None:
    folder = results / "runs" / run / str(step)
    (folder / "adapter").mkdir(parents=True)
    write_json(folder / "state/state.json", {"digests": {"training configuration": made}})


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_an_old_run_is_moved_aside_whole_and_others_stay(tmp_path):
    for run in ("a", "a.b", "[x]"):
        checkpoint(tmp_path, run, 20)
        for name in (
            f"images/{run}/20/s/0.png", f"scores/g/{run}/20.json", f"answers/d/{run}/20.json",
            f"tensorboard/{run}/events", f"logs/train/{run}.20.log", f"timings/train/{run}.20.tsv",
            f"trackers/wandb/{run}/run.json",
            f"figures/samples_{run}.png", f"work/train/{run}/40/d/states/000030/state.json",
            f"work/generate_shard/{run}/20/s/0/d/done/000000.json",
        ):  # fmt: skip
            write_json(tmp_path / name, run)
    checkpoint(tmp_path, "a", 40)
    before = listing(tmp_path)
    aside = set_run_aside(tmp_path, "a")
    assert aside == tmp_path / "runs/a.replaced-0123456789abcdef"
    new = "a.replaced-0123456789abcdef"
    mine = {name for name in before if "/a/" in name or "train/a.20." in name}
    moved = {name.replace("/a/", f"/{new}/").replace("train/a.20.", f"train/{new}.20.") for name in mine}
    assert len(mine) == 11 and listing(tmp_path) == before - mine | moved
    assert finished_checkpoints(tmp_path) == {"a.b": [20], "[x]": [20]}
    assert set_run_aside(tmp_path, "a") is None
    checkpoint(tmp_path, "a", 20)  # trained again, and replaced again
    assert set_run_aside(tmp_path, "a").name == f"{new}-2"
    assert set_run_aside(tmp_path, "[x]").name.startswith("[x].replaced-")
    assert finished_checkpoints(tmp_path) == {"a.b": [20]}


def test_a_move_that_was_cut_short_is_taken_up(tmp_path):
    checkpoint(tmp_path, "a", 20)
    write_json(tmp_path / "images/a/20/0.png", 1)
    write_json(tmp_path / "scores/g/a/20.json", 1)
    os.rename(tmp_path / "images/a", tmp_path / "images/a.replaced-0123456789abcdef")
    set_run_aside(tmp_path, "a")
    names = {path.parent.name for path in tmp_path.glob("*/**/20*")}
    assert "a" not in names and listing(tmp_path) == {
        "images/a.replaced-0123456789abcdef/20/0.png", "scores/g/a.replaced-0123456789abcdef/20.json",
        "runs/a.replaced-0123456789abcdef/20/state/state.json",
    }  # fmt: skip


def test_a_state_that_cannot_be_read_is_no_reason_to_delete(tmp_path):
    checkpoint(tmp_path, "a", 20)
    (tmp_path / "runs/a/20/state/state.json").write_text("{")
    assert state_digests(tmp_path / "runs/a/20") == {} == state_digests(tmp_path / "nothing")
    assert set_run_aside(tmp_path, "a").name == "a.replaced-unknown"


def test_old_captions_are_moved_aside_as_far_as_they_are_made_again(tmp_path):
    for name in ("captions.h5", "heldout.jsonl", "shards/00000.h5", "images/0.png"):
        write_json(tmp_path / "captions" / name, name)
    planned = [str(tmp_path / "captions" / name) for name in ("captions.h5", "heldout.jsonl")]
    for number in ("", "-2"):
        aside = set_captions_aside(tmp_path, [*planned, str(tmp_path / "runs/a/20/adapter")], "abc")
        assert aside.name == f"captions.replaced-abc{number}" and listing(aside) == {"captions.h5", "heldout.jsonl"}
        assert set_captions_aside(tmp_path, planned, "abc") is None
        for path in map(Path, planned):
            write_json(path, 1)
    assert (tmp_path / "captions/shards/00000.h5").exists() and (tmp_path / "captions/images/0.png").exists()


def test_runs_to_train_again_are_named():
    known = {"e": ["a", "b"], "f": ["b"]}
    assert named_runs("a,f/b", known) == named_runs(["a", "f/b"], known) == {("e", "a"), ("f", "b")}
    with pytest.raises(ConfigError) as caught:
        named_runs("b c g/a", known)
    assert str(caught.value).splitlines() == [
        "retrain: b: several experiments have it; write e/b or f/b",
        "retrain: c: no such run (known: e/a, e/b, f/b)",
        "retrain: g/a: no such run (known: e/a, e/b, f/b)",
    ]


def test_all_conflicts_are_told_with_the_ways_on():
    run = Conflict("e", "results/e/runs/a", ["a"], ["changed"], [20, 40], assignments=["learning_rate=0.1"])
    text = refusal([run, Conflict("e", "results/e/runs/b", ["b"], ["changed"], [20])])
    assert "results/e/runs/a (checkpoints 20, 40): changed\nresults/e/runs/b (checkpoint 20): changed\n" in text
    assert "set=e.runs.NEW.learning_rate=0.1" in text and "--config retrain=e/a,e/b " in text
    text = refusal([Conflict("e", "results/e/captions/captions.h5", ["a", "b"], ["changed"], shared=True)])
    assert "copy config/experiments/e.yaml" in text and "runs.NEW" not in text and "retrain=e/a,e/b " in text


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "UNSETTLED_S", -1.0)
    return lambda: Inputs(tmp_path / "results", FileHashes(tmp_path / "results/hashes.json"))


def test_an_input_is_known_by_what_it_holds(tmp_path, inputs):
    folder, file = tmp_path / "it's a größe", tmp_path / "prompts.txt"
    folder.mkdir()
    (folder / "lora.safetensors").write_text("one")
    file.write_text("one")
    named = {"runs.x.adapter": str(folder), "image_sets.s.prompts": str(file), "models.vlm.path": "owner/name"}
    first = inputs()
    assert first.marked("d", named) == "d" and first.changed(named) == {}
    first.save()
    assert json.loads(first.path.read_text()).keys() == {str(folder), str(file)}
    for path in (folder / "lora.safetensors", file):
        os.utime(path)  # newer, and the same
    (folder / "README.md").write_text("of the adapter")
    assert inputs().marked("d", named) == "d"
    new = tmp_path / "new"
    new.write_text("two")
    os.utime(new, (1, 1))
    shutil.copy2(new, folder / "lora.safetensors")  # older, and another one
    assert inputs().changed(named) == {"runs.x.adapter": str(folder)}
    other = inputs().marked("d", named)
    assert other != "d" and inputs().marked("d", {"image_sets.s.prompts": str(file)}) == "d"
    (folder / "more.safetensors").write_text("three")
    assert inputs().marked("d", named) not in ("d", other)
    (folder / "more.safetensors").unlink()
    assert inputs().marked("d", named) == other
    (folder / "lora.safetensors").write_text("one")
    assert inputs().marked("d", named) == "d"


def test_large_weights_are_known_by_their_ends_and_middle(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(file_hashes, "WHOLE", 100)
    monkeypatch.setattr(file_hashes, "MIB", 10)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(1000))
    found = {inputs().content(str(file))}
    for place in (0, 505, 999):
        content = bytearray(1000)
        content[place] = 1
        file.write_bytes(content)
        known = inputs()
        found.add(known.content(str(file)))
        known.save()
        assert inputs().content(str(file)) in found and inputs().hashes.sampled(file)
    assert len(found) == 4
    prompts = tmp_path / "prompts.txt"  # read whole
    for line in (b"a", b"b"):
        prompts.write_bytes(bytes(250) + line + bytes(749))
        found.add(inputs().content(str(prompts)))
    assert len(found) == 6


def test_inputs_of_each_stage(tmp_path):
    raw = json.loads(json.dumps(RAW))
    raw["models"] = {"t2i": {"path": "m/t2i"}, "vlm": {"path": "m/vlm"}}
    raw["captions"] = {"prompts": "p.txt", "heldout": 8}
    raw["runs"]["b"]["reward_vlm"] = {"path": "m/other"}
    raw["image_sets"]["s"] = {"benchmark": "captions", "prompts": "s.jsonl"}
    config = parse_experiment(raw)
    assert inputs_of(config, "merge") == {"captions.prompts": "p.txt"}
    assert inputs_of(config, "caption") == {"models.vlm.path": "m/vlm"}
    assert inputs_of(config, "train", "a") == {"models.t2i.path": "m/t2i", "models.vlm.path": "m/vlm"}
    assert inputs_of(config, "train", "b") == {"models.t2i.path": "m/t2i", "runs.b.reward_vlm.path": "m/other"}
    assert inputs_of(config, "adapter", "theirs") == {"runs.theirs.adapter": "x/y"}
    prompts = {"image_sets.s.prompts": "s.jsonl"}
    assert inputs_of(config, "generate", image_set="s") == {"models.t2i.path": "m/t2i", **prompts}
    assert inputs_of(config, "score", benchmark="dense") == prompts
    with tarfile.open(Path(__file__).parents[1] / "workflow/finished_demo.tar.xz") as earlier:
        earlier.extract("config/experiments/shapes.yaml", tmp_path, filter="data")
    shapes = load_experiment(tmp_path / "config/experiments/shapes.yaml")
    assert inputs_of(shapes, "train", "promptecho-s1") == {}
    assert slice_digest(shapes, "train", "promptecho-s1") == "3e50234f80a7fb67"  # what its finished results carry


def test_an_input_that_cannot_be_read_is_named(tmp_path, inputs):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder/pipe.safetensors")
    assert inputs().content(str(tmp_path / "pipe")) is None
    with pytest.raises(DataError, match="pipe.safetensors: cannot read"):
        inputs().content(str(tmp_path / "folder"))
    with pytest.raises(DataError, match="cannot read .File name too long"):
        inputs().content(str(tmp_path / ("x" * 300)))


def test_training_by_hand_overwrites_no_other_run(tmp_path):
    checkpoint(tmp_path, "a", 20)
    options = {"config": SHAPES, "run": "promptecho-s1", "to": 10, "captions": "x", "work": tmp_path / "work"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    before = listing(tmp_path)
    result = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "runs/a/20")])
    assert isinstance(result.exception, ConfigError)
    assert "a finished checkpoint that was trained with other settings (digest 0123456789abcdef)" in str(
        result.exception
    )
    assert listing(tmp_path) == before
