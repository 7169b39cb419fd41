"""Configuration: everything wrong is told at once; digests change exactly when they must; documents don't drift."""

from __future__ import annotations

import copy
import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.config import (
    TrainingConfig,
    dump_yaml,
    evaluation_steps,
    load_experiment,
    parse_experiment,
    run_training,
    slice_digest,
    write_resolved,
)
from promptecho.config.docs import generated
from promptecho.config.resolve import resolve
from promptecho.config.yaml_files import deep_merge
from promptecho.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
RAW: dict[str, Any] = {
    "experiment": "tiny",
    "models": {"t2i": {"path": "/models/a"}, "vlm": {"path": "/models/b"}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
    "training": {
        "iterations": 4,
        "checkpoints": [2, 4],
        "prompts_per_iteration": 4,
        "images_per_prompt": 4,
        "batch_size": 8,
    },
    "runs": {"echo-s1": {"seed": 1}, "echo-s2": {"seed": 2, "learning_rate": "1e-4"}},
    "image_sets": {"geneval": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}}},
    "benchmarks": {"geneval": {"image_set": "geneval", "scorer": "geneval", "backend": "oracle"}},
    "evaluate": [{"benchmark": "geneval"}],
    "tables": ["geneval"],
}
STAGES = {
    "images": {},
    "caption": {},
    "merge": {},
    "train": {"run": "echo-s1"},
    "prompts": {"image_set": "geneval"},
    "generate": {"image_set": "geneval"},
    "score": {"benchmark": "geneval"},
    "tables": {},
}


def changed(dotted: str, value: Any) -> dict[str, Any]:
    """RAW with one key replaced."""
    raw = copy.deepcopy(RAW)
    *path, last = dotted.split(".")
    target = raw
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
    target[last] = value
    return raw


def problems(raw: dict[str, Any]) -> dict[str, str]:
    """Dotted path -> message of every reported problem."""
    with pytest.raises(ConfigError) as error:
        parse_experiment(raw, "FILE")
    return dict(line.removeprefix("FILE: ").split(": ", 1) for line in str(error.value).splitlines())


def digests(raw: dict[str, Any]) -> dict[str, str]:
    config = parse_experiment(raw)
    return {stage: slice_digest(config, stage, **names) for stage, names in STAGES.items()}


@cache
def base_digests() -> dict[str, str]:
    return digests(RAW)


def rerun_by(dotted: str, value: Any) -> set[str]:
    before, after = base_digests(), digests(changed(dotted, value))
    return {stage for stage in STAGES if before[stage] != after[stage]}


def test_everything_wrong_is_told_at_once():
    raw = copy.deepcopy(RAW)
    raw["model"] = {}
    raw["models"]["t2i"]["dtype"] = "float8"
    raw["captions"].update(prompts="prompts.txt", query=3)
    raw["training"].update(batch_size=6, micro_batch_size=0, learning_rate="fast", learning_rat=1)
    raw["training"]["lora"] = {"rank": True}
    raw["runs"].update({"Bad Name": {}, "base": {}, "wide": {"images_per_prompt": 1}})
    raw["image_sets"]["geneval"]["num_shards"] = 0
    raw["evaluate"].append({"benchmark": "dpg", "at": [3]})
    found = problems(raw)
    assert set(found) == {
        "model",
        "models.t2i.dtype",
        "captions",
        "captions.query",
        "training.batch_size",
        "training.learning_rate",
        "training.learning_rat",
        "training.micro_batch_size",
        "training.lora.rank",
        "runs.Bad Name",
        "runs.base",
        "runs.wide.images_per_prompt",
        "runs.wide.batch_size",
        "image_sets.geneval.num_shards",
        "evaluate.1.benchmark",
        "evaluate.1.at",
    }
    assert found["model"] == "is not a known key; did you mean models?"
    assert "exactly one of images, prompts, shapes" in found["captions"]


@pytest.mark.parametrize(
    ("dotted", "value", "path", "message"),
    [
        ("training.checkpoints", [2, 9], "training.checkpoints", "9 is a checkpoint beyond the run"),
        ("training.checkpoints", [2, 3], "training.checkpoints", "must equal iterations 4"),
        ("training.checkpoints", [3, 2, 4], "training.checkpoints", "must increase"),
        ("training.checkpoints", [], "training.checkpoints", "is empty"),
        ("training.checkpoints", [2, "4x"], "training.checkpoints.1", "valid integer"),
        ("training.checkpoint_every", 2, "training.checkpoint_every", "either checkpoints or checkpoint_every"),
        (
            "runs.echo-s1",
            {"images_per_prompt": 6, "timesteps": {"shared_by": "prompt"}},
            "runs.echo-s1.batch_size",
            "8 is not a multiple of images_per_prompt 6",
        ),
        ("training", "fast", "training", "must hold keys with values, such as `seed: ...`"),
        ("runs.echo-s1", "fast", "runs.echo-s1", "must hold keys with values"),
        (
            "training.timesteps",
            {"distribution": "sampler_grid", "per_sample": 31},
            "training.timesteps.per_sample",
            "31 exceeds the 30 steps of sampling",
        ),
        (
            "training.timesteps",
            {"distribution": "stratified_grid", "per_sample": 27, "grid_first": 1, "grid_share": 0.9},
            "training.timesteps.per_sample",
            "27 exceeds the 30 steps of sampling, of which timesteps.grid_share and grid_first leave 26, which "
            "stratified_grid draws from",
        ),
        (
            "models.t2i.family",
            "sdxl",
            "models.t2i.family",
            "should be 'zimage', 'qwenimage', 'qwenimage_edit', 'flux', 'sd3', 'flux2' or 'wan' (found 'sdxl')",
        ),
        (
            "rewards",
            [{"name": "clip"}],
            "rewards.0.name",
            "should be 'echo', 'inferscore', 'expected_score', 'contrastive_echo', 'weighted_echo', 'pickscore', "
            "'clipscore', 'aesthetic', 'imagereward', 'http' or 'served_echo' (found 'clip')",
        ),
        ("training.learning_rate", 0, "training.learning_rate", "greater than 0"),
        ("training.learning_rate", float("nan"), "training.learning_rate", "finite"),
        ("training.seed", True, "training.seed", "integer"),
        ("runs.echo-s1.iterations", 8, "runs.echo-s1.checkpoints", "must equal iterations 8"),
        ("evaluate.0.at", [3], "evaluate.0.at", "3: no such checkpoint of run echo-s2, whose checkpoints are 2, 4"),
        ("evaluate.0.at", "sometimes", "evaluate.0.at", "expected all, last, or a list of steps"),
        ("evaluate", [], "tables.0", "geneval has nothing to show"),
        ("captions.heldout", 40, "captions.heldout", "leaves no caption to train on"),
        ("captions.shapes", None, "captions", "exactly one of"),
        ("benchmarks.geneval.image_set", "x", "benchmarks.geneval.image_set", "no such entry of image_sets"),
        ("image_sets.geneval.shapes", None, "image_sets.geneval", "exactly one of prompts, shapes, heldout"),
        ("image_sets.x", {"benchmark": "captions", "heldout": 4, "prompts": "p"}, "image_sets.x", "exactly one of"),
        ("image_sets.x", {"benchmark": "captions", "heldout": 9}, "image_sets.x.heldout", "9 is more than"),
        ("image_sets.x", {"benchmark": "captions", "heldout": 0}, "image_sets.x.heldout", "greater than or equal to 1"),
        ("image_sets.x", {"benchmark": "geneval", "heldout": 4}, "image_sets.x.heldout", "no geneval prompts"),
        (
            "image_sets.x",
            {"benchmark": "captions", "shapes": {"per_tag": 1, "seed": 1}},
            "image_sets.x.shapes",
            "makes no captions; give heldout or prompts",
        ),
        ("benchmarks.geneval.scorer", "captions", "benchmarks.geneval.scorer", "cannot score image set geneval"),
        ("rewards", [], "rewards", "at least 1 item"),
        ("training.heldout", {"prompts": 9}, "training.heldout.prompts", "9 is more than captions.heldout, which is 8"),
        ("training.heldout", {"patience": 2}, "training.heldout.patience", "needs heldout.prompts above 0"),
        ("runs.echo-s1", {"control": "none", "timesteps": {"redraw": "step"}}, "runs.echo-s1.timesteps.redraw", "pass"),
        ("runs", [1], "runs", "expected a mapping"),
        ("models.t2i", {}, "models.t2i.path", "is missing"),
    ],
)
def test_one_thing_wrong(dotted, value, path, message):
    found = problems(changed(dotted, value))
    assert message in found[path]
    assert set(found) == {path}


def with_captions(image_set: dict[str, Any], **captions: Any) -> dict[str, Any]:
    """RAW with a benchmark on captions and other training captions."""
    raw = changed("image_sets.c", {"benchmark": "captions", **image_set})
    raw["benchmarks"]["c"] = {"image_set": "c", "scorer": "captions", "backend": "oracle"}
    raw["captions"] = {"heldout": 8, **(captions or {"shapes": {"count": 40, "seed": 1}})}
    return raw


def test_an_experiment_may_evaluate_a_model_alone():
    """Then it has no captions, and its VLM is not looked for; whatever needs captions asks for them."""
    from promptecho.models.required import required_models

    alone = {key: value for key, value in RAW.items() if key not in ("captions", "runs", "training", "rewards")}
    alone |= {"evaluate": [{"benchmark": "geneval"}]}
    config = parse_experiment(alone)
    assert not config.captions.writes and [one.used_by for one in required_models(config)] == [("models.t2i",)]
    assert parse_experiment(config.model_dump(mode="json")) == config
    told = {"captions": "give exactly one of images, prompts, shapes (found none)"}
    assert problems(alone | {"runs": RAW["runs"]}) == told
    assert problems({key: alone[key] for key in ("experiment", "models")}) == told
    heldout = {"benchmark": "captions", "heldout": 4}
    assert problems(alone | {"image_sets": RAW["image_sets"] | {"heldout": heldout}}) == told


def test_captions_are_scored_by_the_oracle_in_the_embedded_world_only():
    assert parse_experiment(with_captions({"heldout": 8})).image_sets["c"].heldout == 8
    assert problems(with_captions({"heldout": 8}, images="photos")).keys() == {"benchmarks.c.backend"}
    assert problems(with_captions({"heldout": 8}, prompts="p.txt")).keys() == {"benchmarks.c.backend"}
    found = problems(with_captions({"prompts": "p.jsonl"}))
    assert found.keys() == {"benchmarks.c.backend"}
    assert "neither `shapes` prompts nor held-out captions of `captions.shapes`" in found["benchmarks.c.backend"]
    generated_only = with_captions({"prompts": "p.jsonl"}, images="photos")
    del generated_only["benchmarks"]["c"]
    assert parse_experiment(generated_only).image_sets["c"].prompts == "p.jsonl"


def test_each_worlds_oracle_reads_that_world_only():
    gallery = {"shapes": {"count": 40, "seed": 1, "world": "gallery"}}
    assert problems(with_captions({"heldout": 8}, **gallery)).keys() == {"benchmarks.c.backend"}
    raw = with_captions({"heldout": 8}, **gallery)
    raw["benchmarks"]["c"]["backend"] = "gallery"
    assert parse_experiment(raw).captions.shapes.world == "gallery"
    raw["image_sets"]["t"] = {"benchmark": "textocr", "shapes": {"per_tag": 1, "seed": 1, "world": "gallery"}}
    raw["benchmarks"]["t"] = {"image_set": "t", "scorer": "textocr", "backend": "gallery"}
    assert parse_experiment(raw).image_sets["t"].shapes.world == "gallery"
    raw["image_sets"]["d"] = {"benchmark": "dpg", "shapes": {"per_tag": 1, "seed": 1, "world": "gallery"}}
    raw["benchmarks"]["d"] = {"image_set": "d", "scorer": "dpg", "backend": "gallery"}
    raw["benchmarks"]["pairs"] = {"image_set": "c", "scorer": "densealign", "backend": "gallery"}
    assert parse_experiment(raw).image_sets["d"].shapes.world == "gallery"
    raw["image_sets"]["i"] = {
        "benchmark": "tiif", "images_per_prompt": 1, "shapes": {"per_tag": 1, "seed": 1, "world": "gallery"},
    }  # fmt: skip
    raw["benchmarks"]["i"] = {"image_set": "i", "scorer": "tiif", "backend": "gallery"}
    assert parse_experiment(raw).benchmarks["i"].backend == "gallery"
    raw["benchmarks"]["d"]["backend"] = "oracle"
    assert problems(raw).keys() == {"benchmarks.d.backend"}
    del raw["benchmarks"]["d"]
    raw["image_sets"]["t"]["shapes"]["world"] = "shapes"
    raw["image_sets"]["geneval"] = {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1, "world": "gallery"}}
    found = problems(raw)
    assert found["benchmarks.t.backend"].startswith("gallery sees the gallery only")
    assert found["image_sets.geneval.shapes.world"] == "makes no geneval prompts; leave it out"


def test_faulty_key_raises_no_second_alarm():
    """`batch_size` falls back to its default while the rest is checked; that default does not fit, and is not told."""
    assert set(problems(changed("training.batch_size", "many"))) == {"training.batch_size"}


def test_runs_inherit_and_override():
    config = parse_experiment(RAW)
    assert run_training(config, "echo-s1").learning_rate == TrainingConfig().learning_rate
    assert run_training(config, "echo-s2").learning_rate == 1e-4
    assert run_training(config, "echo-s2").checkpoint_steps == [2, 4]
    with pytest.raises(ConfigError, match=r"runs\.nobody: no such run \(known: echo-s1, echo-s2"):
        run_training(config, "nobody")


def test_run_replaces_inherited_checkpoints():
    config = parse_experiment(changed("runs.echo-s1", {"iterations": 7, "checkpoint_every": 3}))
    assert run_training(config, "echo-s1").checkpoint_steps == [3, 6, 7]
    assert run_training(config, "echo-s2").checkpoint_steps == [2, 4]


@pytest.mark.parametrize(("at", "steps"), [("all", [2, 4]), ("last", [4]), ([2], [2])])
def test_evaluation_steps(at, steps):
    config = parse_experiment(changed("evaluate.0.at", at))
    assert evaluation_steps(config, "geneval", "echo-s1") == steps
    assert evaluation_steps(config, "geneval", "base") == [0]
    without_base = parse_experiment(changed("evaluate.0.base", False))
    assert evaluation_steps(without_base, "geneval", "base") == []


def test_resolved_file_reads_back_equal(tmp_path):
    config = parse_experiment(RAW)
    path = write_resolved(config, tmp_path)
    assert load_experiment(path) == config
    assert write_resolved(config, tmp_path) == path
    assert yaml.safe_load(dump_yaml(config))["training"]["lora"]["rank"] == 64


def test_files_that_are_no_configuration(tmp_path):
    for text, message in {
        "a: [": "not valid YAML",
        "- 1": "expected a mapping",
        "training: {seed: 1}\ntraining: {seed: 2}": "appears twice",
    }.items():
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message) as error:
            load_experiment(tmp_path / "x.yaml")
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_experiment(tmp_path / "absent.yaml")


# --- digests ---------------------------------------------------------------------------------------------------

EVERYTHING_TRAINED = {"merge", "train"}


@pytest.mark.parametrize(
    ("dotted", "value", "stages"),
    [
        ("captions.shapes.count", 41, {"images", "caption", "merge", "train"}),
        ("captions.shapes.world", "gallery", {"images", "caption", "merge", "train"}),
        ("captions.shapes.world", "shapes", set()),
        ("image_sets.geneval.shapes.world", "shapes", set()),
        ("captions.query", "What is there?", {"caption", "merge", "train"}),
        ("captions.heldout", 9, {"merge", "train"}),
        ("captions.max_words", 9, {"merge", "train"}),
        ("captions.batch_size", 2, set()),
        ("models.vlm.revision", "abc", {"caption", "merge", "train"}),
        ("models.t2i.revision", "abc", {"merge", "train", "generate"}),
        ("models.t2i.height", 512, {"train", "generate"}),
        ("rewards", [{"query": "Read the text."}], {"train"}),
        ("training.clip_range", 0.1, {"train"}),
        ("training.sampling", {"guidance_scale": 1.0}, {"train"}),
        ("training.sampling", {"batch_size": 1}, set()),
        ("training.checkpoints", [1, 2, 4], set()),
        ("runs.echo-s2.seed", 3, set()),
        ("runs.echo-s3", {}, set()),
        ("image_sets.geneval.shapes.seed", 2, {"prompts", "generate"}),
        ("image_sets.geneval.seed", 2, {"generate"}),
        ("image_sets.geneval.batch_size", 2, set()),
        ("evaluate.0.at", "last", set()),
        ("compute", {"compile": "on", "deterministic": True}, set()),
    ],
)
def test_a_stage_reruns_when_its_slice_changes(dotted, value, stages):
    assert rerun_by(dotted, value) == stages


def test_heldout_count_makes_prompts_and_images_anew():
    before, after = parse_experiment(with_captions({"heldout": 8})), parse_experiment(with_captions({"heldout": 7}))
    for stage in ("prompts", "generate"):
        assert slice_digest(before, stage, image_set="c") != slice_digest(after, stage, image_set="c")
    assert slice_digest(before, "train", "echo-s1") == slice_digest(after, "train", "echo-s1")


NOT_IN_TRAINING = st.fixed_dictionaries(
    {},
    optional={
        "checkpoints": st.just([1, 2, 4]),
        "micro_batch_size": st.sampled_from([1, 2, 4, 8]),
        "zero_stage": st.sampled_from([1, 2]),
        "save_every_s": st.integers(0, 10**6),
    },
)


@settings(deadline=None)
@given(NOT_IN_TRAINING, st.integers(5, 10**6))
def test_training_slice_excludes_how_far_and_where(settings, iterations):
    raw = deep_merge(RAW, {"training": settings})
    longer = deep_merge(raw, {"training": {"iterations": iterations, "checkpoints": [2, 4, iterations]}})
    assert digests(raw) == base_digests() == digests(longer)


def test_captions_to_stop_on_are_none_to_be_judged_on():
    judged = {"image_sets": {"own": {"benchmark": "captions", "heldout": 6}}}
    watched = {"training": {"heldout": {"prompts": 3}}}
    parse_experiment(deep_merge(deep_merge(RAW, judged), watched))
    stopping = deep_merge(deep_merge(RAW, judged), {"training": {"heldout": {"prompts": 3, "patience": 2}}})
    with pytest.raises(ConfigError, match="3 to stop on and 6 to be judged on are more than captions.heldout"):
        parse_experiment(stopping)
    assert digests(deep_merge(RAW, watched)) == base_digests(), "merely watching trains nothing anew"
    stopping["training"]["heldout"]["prompts"] = 2
    assert digests(stopping)["train"] != base_digests()["train"]


TRAINED = st.one_of(
    st.tuples(st.just("learning_rate"), st.floats(1e-9, 1.0, exclude_max=True).filter(lambda x: x != 5e-5)),
    st.tuples(st.just("passes"), st.integers(5, 99)),
    st.tuples(st.just("seed"), st.integers(2, 2**62)),
    st.tuples(st.just("weighting"), st.sampled_from(["uniform", "t", "t2", "huber"])),
    st.tuples(st.just("kl_base"), st.builds(lambda w: {"weight": w}, st.floats(1e-6, 9.0))),
    st.tuples(st.just("lora"), st.builds(lambda r: {"rank": r}, st.integers(1, 63))),
)


@settings(deadline=None)
@given(TRAINED)
def test_training_slice_holds_what_is_trained(setting):
    key, value = setting
    own = deep_merge(RAW, {"runs": {"echo-s1": {key: value}}})
    assert {stage for stage, digest in digests(own).items() if digest != base_digests()[stage]} == {"train"}
    other = slice_digest(parse_experiment(own), "train", "echo-s2")
    assert other == slice_digest(parse_experiment(RAW), "train", "echo-s2")


@settings(deadline=None)
@given(st.permutations(list(RAW)))
def test_order_of_keys_does_not_matter(order):
    assert digests({key: RAW[key] for key in order}) == base_digests()


def test_digest_needs_its_names():
    config = parse_experiment(RAW)
    with pytest.raises(ConfigError, match="needs run"):
        slice_digest(config, "train")
    with pytest.raises(ConfigError, match="no such stage"):
        slice_digest(config, "cooking")
    with pytest.raises(ConfigError, match=r"image_sets\.x: no such entry"):
        slice_digest(config, "generate", image_set="x")


# --- site and values for one call ------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    for name in ("one", "two"):
        raw = {key: value for key, value in RAW.items() if key != "experiment"}
        raw["models"] = {"t2i": {"path": "a"}, "vlm": {"path": "shapes"}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    return {"experiments": ["one"], "experiments_dir": str(tmp_path)}


def test_resolve_takes_values_for_one_call(site):
    given_ = {
        **site,
        "experiments": "one,two",
        "one": {"training": {"learning_rate": "1e-3", "checkpoints": ["1", "4"], "advantage": {"clip": "null"}}},
        "set": "two.training.passes=2 two.evaluate.0.at=last",
    }
    configs = resolve(given_)
    assert list(configs) == ["one", "two"]
    assert configs["one"].training.learning_rate == 1e-3
    assert configs["one"].runs["echo-s1"].checkpoint_steps == [1, 4]
    assert configs["one"].training.advantage.clip is None
    assert configs["two"].training.passes == 2
    assert evaluation_steps(configs["two"], "geneval", "echo-s1") == [4]


def test_resolve_tells_the_problems_of_all_files(site):
    with pytest.raises(ConfigError) as error:
        resolve({**site, "experiments": ["one", "two", "three"], "set": "one.training.passes=0 two.captions.nope=1"})
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("--config set=one.training.passes: "), "not the file's fault"
    assert lines[1].startswith("--config set=two.captions.nope: is not a known key; known here: images, prompts")
    assert "three.yaml: no such experiment (known: one, two)" in lines[2]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"foo": 1}, "foo: is not a known key"),
        ({"set": "one.training"}, r"expected EXPERIMENT\.dotted\.key=VALUE"),
        ({"set": "one.evaluate.7.at=last"}, "7 is not a position in a list of 1"),
        ({"set": "one.captions.heldout.x=1"}, "holds a value, not keys"),
        ({"experiments": []}, "experiments: "),
    ],
)
def test_site_problems(site, extra, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**site, **extra})


def test_models_root_finds_models_and_reruns_nothing(site, tmp_path):
    plain = resolve(site)["one"]
    found = []
    for place in ("disk1", "disk2"):
        (tmp_path / place / "a").mkdir(parents=True)
        found.append(resolve({**site, "models_root": str(tmp_path / place)})["one"])
        assert found[-1].models.t2i.path == str(tmp_path / place / "a")
        assert found[-1].models.vlm.path == "shapes"
    for stage, names in STAGES.items():
        assert len({slice_digest(config, stage, **names) for config in (plain, *found)}) == 1


# --- the project's own files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "config/experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    config = load_experiment(path)
    schema = json.loads((ROOT / "workflow/schemas/experiment.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    assert config.experiment == path.stem


@pytest.mark.parametrize("path", sorted(generated(ROOT)), ids=lambda path: path.name)
def test_generated_documents_do_not_drift(path):
    expected, found = generated(ROOT)[path], path.read_text()
    diff = difflib.unified_diff(found.splitlines(), expected.splitlines(), str(path), "the models", lineterm="")
    assert found == expected, "run `make docs`:\n" + "\n".join(diff)


def test_what_an_experiment_requires_need_not_stand_in_one_that_extends_it():
    """Key by key: an editor that checks by the schema takes a file that adds a VLM, and misses keys of a whole one."""
    schema = json.loads((ROOT / "workflow/schemas/experiment.schema.json").read_text())
    part = {
        "models": {"t2i": {"height": 32}, "vlms": {"third": {"dtype": "float32"}}},
        "image_sets": {"a": {"num_shards": 2}},
    }
    jsonschema.validate({"extends": "shapes", **part}, schema)
    whole = {"models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}}}
    jsonschema.validate(whole, schema)
    for models in ({"t2i": {"height": 32}, "vlm": {"path": "shapes"}}, {"t2i": {"path": "shapes"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"models": models}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole | {"image_sets": part["image_sets"]}, schema)


@pytest.mark.parametrize("dotted", ["training.lerning_rate", "captions.shapes.sed", "nope", "runs.echo-s1.nope"])
def test_schema_refuses_unknown_keys(dotted):
    schema = json.loads((ROOT / "workflow/schemas/experiment.schema.json").read_text())
    raw = {key: value for key, value in changed(dotted, 1).items() if key != "experiment"}
    raw["runs"]["echo-s2"] = {"learning_rate": 1e-4}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, schema)


@pytest.mark.parametrize(("written", "meant"), [("on", "on"), ("off", "off"), ('"off"', "off"), ("auto", "auto")])
def test_on_and_off_are_words_where_a_choice_has_them(written, meant):
    """YAML 1.1 reads them as true and false."""
    compute = parse_experiment({**RAW, "compute": yaml.safe_load(f"{{compile: {written}, mfu: {written}}}")}).compute
    assert (compute.compile, compute.mfu) == (meant, meant)
