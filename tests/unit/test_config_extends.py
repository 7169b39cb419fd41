"""Experiment files that build on others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from promptecho.config import dump_yaml, load_experiment, run_training
from promptecho.config.resolve import resolve
from promptecho.config.slices import slice_digest
from promptecho.errors import ConfigError

ROOT = Path(__file__).parents[2]
BASE = {
    "models": {"t2i": {"path": "shapes", "dtype": "float32"}, "vlm": {"path": "shapes", "dtype": "float32"}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
    "training": {"iterations": 4, "learning_rate": 1e-4},
    "rewards": [{"name": "echo"}],
    "runs": {"a": {"seed": 1}},
}


def written(folder: Path, **files) -> Path:
    for name, keys in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(keys))
    return folder


def test_mappings_are_merged_and_all_else_is_replaced(tmp_path):
    middle = {"extends": "base", "training": {"iterations": 6}, "runs": {"b": {"seed": 2}}}
    top = {"extends": "middle", "rewards": [{"name": "echo", "query": "What?"}], "runs": {"a": {"passes": 2}}}
    written(tmp_path, base=BASE, middle=middle, top=top)
    config = load_experiment(tmp_path / "top.yaml")
    assert config.experiment == "top" and config.training.iterations == 6 and config.training.learning_rate == 1e-4
    assert {run: (one.seed, one.passes) for run, one in config.runs.items()} == {"a": (1, 2), "b": (2, 4)}
    assert [entry.query for entry in config.rewards] == ["What?"]
    (tmp_path / "0123456789abcdef.yaml").write_text(dump_yaml(config))  # a resolved one stands alone
    assert load_experiment(tmp_path / "0123456789abcdef.yaml") == config and "extends" not in dump_yaml(config)


def test_the_workflow_lays_its_settings_over_both(tmp_path):
    written(tmp_path, base=BASE, top={"extends": "base", "runs": {"b": {"seed": 2}}})
    site = {"experiments": ["top"], "experiments_dir": str(tmp_path), "set": "top.runs.a.seed=7 top.runs.b.passes=3"}
    config = resolve(site)["top"]
    assert (config.runs["a"].seed, config.runs["b"].seed, config.runs["b"].passes) == (7, 2, 3)
    with pytest.raises(ConfigError, match=r"--config set=top.runs.a.pases: is not a known key; did you mean passes"):
        resolve(site | {"set": "top.runs.a.pases=7"})


@pytest.mark.parametrize(
    ("extends", "problem"),
    [
        ("bas", r"top.yaml: extends: no .*/bas.yaml \(known: base, ring\); did you mean base"),
        ("../base", "top.yaml: extends: '../base' is no name; name another file of this folder"),
        (["base"], "is no name"),
        ("top", "top.yaml: extends: top extends top itself"),
        ("ring", "ring.yaml: extends: top extends ring itself"),
    ],
)
def test_what_can_not_be_extended_is_named(tmp_path, extends, problem):
    written(tmp_path, base=BASE, ring={"extends": "top"}, top={"extends": extends})
    with pytest.raises(ConfigError, match=problem) as caught:
        load_experiment(tmp_path / "top.yaml")
    assert "\n" not in str(caught.value)


def test_the_ablations_train_and_judge_the_demos_run_as_the_demo_does():
    """So that their rows may be compared with the demo's, and a recipe that changes changes in both."""
    demo = load_experiment(ROOT / "config/experiments/shapes.yaml")
    config = load_experiment(ROOT / "config/experiments/ablations.yaml")
    assert slice_digest(config, "train", "promptecho-s1") == slice_digest(demo, "train", "promptecho-s1")
    for image_set in ("heldout", "geneval"):
        digests = [slice_digest(one, "generate", image_set=image_set) for one in (config, demo)]
        assert digests[0] == digests[1]
    # A longer training is the same one, further; so how long it is counts as well.
    digests = {run: (slice_digest(config, "train", run), run_training(config, run).iterations) for run in config.runs}
    seeds = {run.rpartition("-s")[0]: [] for run in config.runs}
    for run in config.runs:
        seeds[run.rpartition("-s")[0]].append(config.runs[run].seed)
    assert len(set(digests.values())) == len(digests)
    assert set(map(tuple, seeds.values())) <= {(1,), (1, 2), (1, 2, 3)} and seeds["promptecho"] == [1, 2, 3]
