"""A suggestion for what is misspelt, which can be written there; faults of YAML in one line."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from promptecho.config import parse_experiment, read_yaml
from promptecho.config.benchmarks import available_benchmarks
from promptecho.config.models import NOT_WRITTEN, ExperimentConfig
from promptecho.config.resolve import as_written, resolve
from promptecho.config.suggestions import _below, choices_at, keys_at, meant_keys
from promptecho.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
ONE = {"path": "shapes"}
# An entry in every section that has entries.
RAW: dict[str, Any] = {
    "models": {"t2i": ONE, "vlm": ONE, "vlms": {"other": ONE}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
    "training": {
        "rewards": [{"name": "inferscore", "inferscore": {"samples": 2}}],
        "reward_vlm": ONE,
        "trackers": [{"name": "wandb"}],
        "sizes": [{"height": 64, "width": 64}, {"height": 64, "width": 48}],
    },
    "rewards": [{"name": "echo"}],
    "guards": [{"name": "echo"}],
    "runs": {"one-v1.5": {"seed": 1}, "authors": {"adapter": "owner/name"}},
    "judges": {"models": {"big": {"kind": "local", "model": "shapes"}}},
    "image_sets": {"c": {"benchmark": "captions", "heldout": 4}, "d": {"benchmark": "dpg", "prompts": "p"}},
    "benchmarks": {
        "c": {"image_set": "c", "scorer": "captions", "backend": "oracle"},
        "d": {"image_set": "d", "scorer": "dpg", "backend": "judge", "judge": "big"},
    },
    "evaluate": [{"benchmark": "c"}, {"benchmark": "d"}],
    "tables": ["c"],
}
NAMES = {"models.vlms": "other", "runs": "one-v1.5", "judges.models": "big", "image_sets": "c", "benchmarks": "c"}


def problems(raw: dict[str, Any]) -> dict[str, str]:
    try:
        parse_experiment({**raw, "experiment": "tiny"}, "FILE")
    except ConfigError as error:
        return dict(line.removeprefix("FILE: ").split(": ", 1) for line in str(error).splitlines())
    return {}


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    raw = json.loads(json.dumps(RAW))
    target: Any = raw
    for part in path[:-1]:
        target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        target = {} if target is None else target
    target[int(path[-1]) if isinstance(target, list) else path[-1]] = value
    return raw


def named(path: tuple[str, ...]) -> tuple[str, ...]:
    """NAME in a path of the schema becomes an entry that RAW has."""
    return tuple(NAMES[".".join(path[:i])] if part == "NAME" else part for i, part in enumerate(path))


KEYS = sorted({named(path) for path in _below((), ExperimentConfig)} | {("runs", "one-v1.5", "learning_rate")})
MUTATIONS = (
    lambda key: key[:2] + key[3:],
    lambda key: key[:2] + key[1:],
    lambda key: key[:1] + key[2:3] + key[1:2] + key[3:],
    lambda key: key.replace("_", "-") if "_" in key else key.capitalize(),
    lambda key: re.sub("_(.)", lambda found: found[1].upper(), key) if "_" in key else key.upper(),
)


def suggested(message: str) -> list[str]:
    found = re.search(r"; did you mean (.+)\?$", message)
    return found[1].split(" or ") if found else []


@cache
def assert_can_be_written(suggestion: str, place: tuple[str, ...]) -> None:
    """The suggestion is a key beside the one at fault, or the whole path of another."""
    paths = [(*place, suggestion)] if "." not in suggestion else [_parts(suggestion)]
    for path in paths:
        assert path[0] not in NOT_WRITTEN, suggestion
        if path[0] == "runs" and path[-1] == "adapter":
            assert not problems(at(("runs", "another"), {"adapter": "owner/name"}))
            continue
        # Whatever the value may be, the key is known.
        found = problems(at(named(path), None))
        assert not any("not a known key" in message for message in found.values()), (suggestion, found)


def _parts(dotted: str) -> tuple[str, ...]:
    for name in NAMES.values():
        dotted = dotted.replace(name, name.replace(".", "\0"))
    return tuple(part.replace("\0", ".") for part in dotted.split("."))


def test_every_misspelt_key_gets_a_suggestion_that_can_be_written_there():
    tried = 0
    for number, path in enumerate(KEYS):
        *place, key = path
        mutated = [mutate(key) for mutate in MUTATIONS]
        mutated = [wrong for wrong in mutated if wrong != key and wrong not in keys_at(tuple(place))]
        if len(key) < 5 or not mutated:
            continue
        for wrong in mutated:
            tried += 1
            assert meant_keys((*place, wrong)) == [key], (path, wrong)
        wrong = mutated[number % len(mutated)]  # one of them through everything
        message = problems(at((*place, wrong), 1))[".".join((*place, wrong))]
        assert suggested(message) == [key], f"{'.'.join(path)} written {wrong}: {message}"
        assert_can_be_written(key, tuple(place))
    assert tried > 500


def test_every_key_at_the_top_is_looked_for_in_the_sections():
    """`learning_rate` beside `training` instead of in it."""
    for path in KEYS:
        key = path[-1]
        if key in keys_at(()):
            continue
        message = problems(at((key,), 1))[key]
        assert suggested(message), message
        for suggestion in suggested(message):
            assert_can_be_written(suggestion, ())


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (("learning_rate",), ["training.learning_rate"]),
        (("lora_rank",), ["training.lora.rank"]),
        (("training", "lr"), ["learning_rate"]),
        (("training", "rank"), ["training.lora.rank"]),
        (("runs", "one-v1.5", "rank"), ["runs.one-v1.5.lora.rank"]),
        (("runs", "one-v1.5", "guidance_scale"), ["runs.one-v1.5.sampling.guidance_scale"]),
        (("training", "lora", "learning_rate"), ["training.learning_rate"]),
        (("models", "family"), ["models.t2i.family"]),
        (("image_sets", "c", "cfg_scale"), ["guidance_scale"]),
        (("experiments",), []),  # neither `experiment`, which comes from the file's name, nor anything else
        (("models_roots",), ["models"]),
        (("adapter",), ["runs.NAME.adapter"]),
        (("zzzzzz",), []),
    ],
)
def test_where_a_key_belongs(path, meant):
    message = problems(at(path, 1))[".".join(path)]
    assert suggested(message) == meant
    assert meant or "known here: models, captions, training" in message


def test_published_adapters_are_told_where_they_are_written():
    found = problems(at(("runs", "authors"), {"adaptr": "owner/name", "steps": 5}))
    assert found == {
        "runs.authors.adaptr": "is not a known key; did you mean adapter?",
        "runs.authors.adapter": "is missing",
        "runs.authors.steps": "is not a known key; did you mean step?",
    }
    with pytest.raises(ConfigError, match="adapters: is not written in an experiment file; a published adapter is"):
        as_written({**RAW, "adapters": {}}, "x.yaml")


def test_every_misspelt_choice_gets_one_that_fits():
    tried = 0
    for path in KEYS:
        for choice in choices_at(path):
            if choice in ("none", "t", "t2", "on") or (path[-1] == "scorer" and path[-2] == "d"):
                continue
            wrong = choice[:-2] + choice[-1] + choice[-2] if len(set(choice[-2:])) > 1 else choice + "x"
            if any(choice[:-1] in (other, other[:-1]) for other in choices_at(path) if other != choice):
                wrong = choice[1] + choice[0] + choice[2:]  # the last letter tells geneval2 from geneval
            raw = at(path, wrong)
            if path[-1] == "backend":
                raw["benchmarks"]["c"]["scorer"] = next(
                    found.thing.name for found in available_benchmarks() if choice in found.thing.backend_names
                )
            if path[-1] == "mode":
                raw["benchmarks"]["c"]["scorer"] = "tiif"
            tried += 1
            assert suggested(problems(raw)[".".join(path)]) == [choice], (path, choice)
    assert tried > 30


def test_a_backend_that_the_scorer_lacks_is_not_suggested():
    raw = at(("benchmarks", "d", "backend"), "mask2forme")
    assert "did you mean" not in problems(raw)["benchmarks.d.backend"]
    assert suggested(problems(at(("benchmarks", "d", "backend"), "mplgu"))["benchmarks.d.backend"]) == ["mplug"]
    assert suggested(problems(at(("benchmarks", "c", "mode"), "fixd"))["benchmarks.c.mode"]) == []


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        (("tables", "0"), "cc", "c"),
        (("evaluate", "0", "benchmark"), "C", "c"),
        (("evaluate", "0", "at"), "lasst", "last"),
        (("benchmarks", "c", "image_set"), "C", "c"),
        (("benchmarks", "d", "judge"), "bigg", "big"),
        (("models", "vlm", "dtype"), "bf16", "bfloat16"),
        (("models", "t2i", "family"), "Z-Image", "zimage"),
        (("models", "t2i", "family"), "qwen_image", "qwenimage"),
    ],
)
def test_names_and_choices(path, value, meant):
    assert suggested(problems(at(path, value))[".".join(path)]) == [meant]


def test_the_oracle_names_what_looks_at_real_images():
    raw = at(("captions",), {"images": "photos", "heldout": 8})
    assert "take scorer: densealign with backend: judge" in problems(raw)["benchmarks.c.backend"]
    raw = at(("benchmarks", "d"), {"image_set": "d", "scorer": "dpg", "backend": "oracle"})
    assert "Write backend: mplug or judge with a model of judges.models" in problems(raw)["benchmarks.d.backend"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"experiment": "shapes"}, "experiment: is not a known key; did you mean experiments?"),
        ({"experiments": "shape"}, r"shape.yaml: no such experiment \(known: .*shapes.*\); did you mean shapes\?"),
        ({"shaps": {"training": {"seed": 2}}}, "shaps: is not a known key; did you mean shapes?"),
        ({"sets": "shapes.training.seed=2"}, "sets: is not a known key; did you mean set?"),
        ({"learning_rate": 1}, "is written --config set=EXPERIMENT.training.learning_rate=VALUE"),
        ({"training": {"learning_rate": 1}}, "is written --config set=EXPERIMENT.training=VALUE"),
        ({"adapters": {}}, "is written --config set=EXPERIMENT.runs.NAME.adapter=VALUE"),
        ({"model_root": "/m"}, "model_root: is not a known key; did you mean models_root?"),
        ({"models": {"of_line": True}}, "models.of_line: is not a known key; did you mean offline?"),
        (
            {"set": "shapes.training.learing_rate=1"},
            "--config set=shapes.training.learing_rate: is not a known key; did you mean learning_rate?",
        ),
        ({"set": "shapes.adapters.x.adapter=o/n"}, "adapters: is not written in an experiment file"),
        ({"set": "shape.training.seed=1"}, "did you mean shapes?"),
        # The section is the command line's, too; one that the file has is the file's.
        ({"set": "shapes.trainig.seed=1"}, "--config set=shapes.trainig: is not a known key; did you mean training?"),
        ({"set": "shapes.judges.modells.x=1"}, "--config set=shapes.judges.modells: is not a known key"),
        ({"set": "shapes.rewards.0.w.x=1"}, "--config set=shapes.rewards.0.w: is not a known key"),
    ],
)
def test_site_and_command_line(given, message):
    raw = {"experiments": ["shapes"], "experiments_dir": str(ROOT / "config/experiments"), **given}
    with pytest.raises(ConfigError) as error:
        resolve(raw)
    assert re.search(message if "\\" in message else re.escape(message), str(error.value)), str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"models:\n\tt2i: x\n", "line 2: a tab is used where YAML allows spaces only; indent with spaces"),
        (b"a:\n  b: 1\n\tc: 2\n", "line 3: a tab is used"),
        (b"models:\n  t2i: {path: x\ncaptions: {}\n", "line 2: a brace { that is opened here is not closed"),
        (b"tables: [a, b\nrewards: 1\n", "line 1: a bracket [ that is opened here is not closed"),
        (b"a: 1\nb: 'x\nc: 2\n", "line 2: a quote that begins here is not closed"),
        (b"a: b: c\n", "line 1: a second `: ` in one line"),
        (b"a:\n  b: 1\n c: 2\n", "line 3: the indentation differs"),
        (b"a: 1\nb\nc: 2\n", "line 3: a key without `: ` after it"),
        (b"a: @b\n", "line 1: a value that begins with a special character; put the value in quotes"),
        (b"a: *b\n", "line 1: a value that begins with `*`; put the value in quotes"),
        (b"a: !b c\n", "line 1: a value that begins with `!`; put the value in quotes"),
        (b"a: {{ b }}\n", "line 1: a key is a list or a mapping itself; are braces { } written twice?"),
        (b"a: 1\n---\nb: 2\n", "line 2: `---` begins a second document"),
        (b"a: 1\nb: 2\na: 3\n", "line 3: key 'a' appears twice (line 1 has it too); remove one of them"),
        (b"a: 1\nb: \xe4\n", "line 2: is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \x00\n", "which YAML does not allow"),
        (b"", "is empty, or holds comments only"),
        (b"# nothing\n", "is empty, or holds comments only"),
        (b"- a\n- b\n", "expected a mapping of keys (`key: value`), found a list"),
        (b"models:x\n", "expected a mapping of keys (`key: value`), found the value 'models:x'"),
    ],
)
def test_faults_of_yaml_are_one_line_with_number_and_remedy(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_keys_that_are_taken_from_elsewhere_in_the_file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}


def test_encodings_that_editors_write(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "x.yaml").write_text("a: ä\r\nb: 2\r\n", encoding=encoding)
        assert read_yaml(tmp_path / "x.yaml") == {"a": "ä", "b": 2}
    with pytest.raises(ConfigError, match="is a folder; give a file"):
        read_yaml(tmp_path)


def test_config_check_refuses_what_the_workflow_refuses(tmp_path):
    from promptecho.cli import app

    text = (ROOT / "config/experiments/shapes.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(f"{text}\nexperiment: mine\n")
    result = CliRunner().invoke(app, ["config", "check", str(tmp_path / "mine.yaml")])
    assert "experiment: is not written in an experiment file; remove it: the file's name" in str(result.exception)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("tables --table genval --scores results --print", "geneval"),
        ("plan --config config/experiments/shapes.yaml --run promptecho_s1", "promptecho-s1"),
        ("score --benchmark geneva --config config/experiments/shapes.yaml --images x --out 0.json --experiment shapes"
         " --run base --step 0", "geneval"),
        ("score --benchmark dpg --scorer dbg --images x --out 0.json --experiment shapes --run base --step 0", "dpg"),
        ("score --benchmark dpg --backend mplugg --images x --out 0.json --experiment shapes --run base --step 0",
         "mplug"),
    ],
)  # fmt: skip
def test_names_on_the_command_line(line, meant, monkeypatch):
    from promptecho.cli import app

    monkeypatch.chdir(ROOT)
    assert f"did you mean {meant}?" in str(CliRunner().invoke(app, line.split()).exception)
