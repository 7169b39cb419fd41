"""The recipe's switches: how the adapter begins, which layers it is put on, decays that rise, and presets."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from promptecho.config import load_experiment, run_training, slice_digest, write_resolved
from promptecho.config.families import family_named
from promptecho.config.load import parse_experiment
from promptecho.config.training_parts import EmaSection, KlEmaSection, LoraSection
from promptecho.errors import ConfigError
from promptecho.seeds import derive_seed
from promptecho.t2i.lora import add_lora, trained_parameters

RAW = {
    "experiment": "tiny",
    "models": {"t2i": {"path": "/models/a"}, "vlm": {"path": "/models/b"}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
}
# Input widths of Z-Image's (3840, 10240) and Qwen-Image's (3072, 12288) layers.
WIDTHS = {"to_q": 3840, "w2": 10240, "to_k": 3072, "out": 12288}


def layers() -> torch.nn.Module:
    return torch.nn.ModuleDict({name: torch.nn.Linear(width, 4) for name, width in WIDTHS.items()})


def adapter(init: str, seed: int = 1) -> dict[str, torch.Tensor]:
    model = add_lora(layers(), LoraSection(init=init), seed, {"all": tuple(WIDTHS)})
    return {name: value.detach() for name, value in trained_parameters(model).items()}


def test_a_begins_as_it_is_asked_to_and_b_at_zero():
    for init, expected in (("gaussian", lambda _: 1 / 64), ("kaiming", lambda width: 1 / math.sqrt(3 * width))):
        first, again, other = adapter(init), adapter(init), adapter(init, seed=2)
        assert all(torch.equal(first[name], again[name]) for name in first)
        for name, width in WIDTHS.items():
            a, b = (next(v for n, v in first.items() if f".{name}.lora_{ab}" in n) for ab in "AB")
            assert a.shape == (64, width) and a.dtype == torch.float32
            assert float(a.std()) == pytest.approx(expected(width), rel=0.01)
            assert not b.any()
        assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_kaiming_is_what_peft_does_by_itself():
    """And what adapters began as before there was a choice."""
    model = layers()
    torch.manual_seed(derive_seed(1, "lora"))
    plain = get_peft_model(model, LoraConfig(r=64, lora_alpha=128, target_modules=sorted(WIDTHS)))
    found = adapter("kaiming")
    assert LoraSection().init == "kaiming"
    assert all(torch.equal(found[name], value) for name, value in trained_parameters(plain).items())


@pytest.mark.parametrize(
    ("family", "attention"),
    [
        ("zimage", ["to_k", "to_out.0", "to_q", "to_v"]),
        (
            "qwenimage",
            ["add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v"],
        ),
    ],
)
def test_attention_alone_leaves_the_feed_forward_layers_out(family, attention):
    descriptor = family_named(family)
    model = torch.nn.Module()
    for name in descriptor.lora_targets:
        parent = model
        *parents, last = name.split(".")
        for part in parents:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, torch.nn.Linear(2, 2))
    model = add_lora(model, LoraSection(rank=2, layers="attention"), 1, {"attention": descriptor.lora_attention})
    assert sorted(model.peft_config["default"].target_modules) == attention


def test_decays_rise_as_the_published_code_has_them():
    """AWM moves its average when an epoch ends, by the optimizer steps done; we do when the next iteration begins."""
    ramped, constant = KlEmaSection(decay=0.3, ramp=1e-3), KlEmaSection(decay=0.3)
    assert [ramped.decay_at(n) for n in (1, 2, 299, 300, 5000)] == pytest.approx([0.001, 0.002, 0.299, 0.3, 0.3])
    assert constant.decay_at(1) == 0.3
    warm, plain = EmaSection(decay=0.99, warmup=True), EmaSection(decay=0.99)
    assert [warm.decay_at(n) for n in (1, 2, 10)] == pytest.approx([2 / 11, 3 / 12, 11 / 20])
    assert warm.decay_at(5000) == plain.decay_at(1) == 0.99


# --- presets ---------------------------------------------------------------------------------------------------

PUBLISHED = {
    "images_per_prompt": 24, "passes": 1, "learning_rate": 3e-4, "weight_decay": 1e-4, "adam_eps": 1e-8,
    "max_grad_norm": 1.0, "clip_range": 1.0, "weighting": "ghuber", "ghuber_power": 0.25,
}  # fmt: skip


def test_the_published_settings_are_under_the_keys_written_beside_them():
    config = parse_experiment({
        **RAW, "training": {"iterations": 4, "learning_rate": 1e-3, "batch_size": 8, "prompts_per_iteration": 2,
                            "lora": {"rank": 4}, "micro_batch_size": 8, "images_per_prompt": 4},
        "runs": {"ours": {}, "awm": {"preset": "awm-published", "prompts_per_iteration": 8, "batch_size": 192}},
    })  # fmt: skip
    ours, awm = run_training(config, "ours"), run_training(config, "awm")
    assert (ours.learning_rate, ours.lora.rank, ours.clip_range, ours.preset) == (1e-3, 4, 0.2, None)
    assert {key: getattr(awm, key) for key in PUBLISHED} == PUBLISHED and awm.preset is None
    assert (awm.iterations, awm.prompts_per_iteration, awm.batch_size) == (4, 8, 192)
    assert (awm.lora.rank, awm.lora.alpha, awm.lora.init, awm.lora.layers) == (32, 64, "gaussian", "attention")
    assert (awm.advantage.scale, awm.advantage.clip, awm.advantage.factor) == ("reward_std", 5.0, 0.2)
    assert (awm.kl_base.weight, awm.kl_ema.ramp, awm.ema.decay, awm.ema.warmup) == (3e-3, 1e-3, 0.99, True)

    below = parse_experiment({**RAW, "training": {"preset": "awm-published", "learning_rate": 1e-5}, "runs": {"r": {}}})
    assert run_training(below, "r").learning_rate == 1e-5 and run_training(below, "r").images_per_prompt == 24
    for null in ({"training": {"preset": None}}, {"runs": {"r": {"preset": None}}}):
        assert parse_experiment({**RAW, "runs": {"r": {}}, **null}) == parse_experiment({**RAW, "runs": {"r": {}}})


def test_a_resolved_configuration_needs_no_preset_and_says_the_same(tmp_path):
    folder = tmp_path / "config"
    for name in ("experiments", "presets"):
        (folder / name).mkdir(parents=True)
    own = folder / "presets" / "mine.yaml"
    own.write_text("passes: 2\nlora: {init: gaussian}\n")
    path = folder / "experiments" / "e.yaml"
    raw = {key: value for key, value in RAW.items() if key != "experiment"}
    path.write_text(yaml.safe_dump({**raw, "training": {"preset": "mine"}, "runs": {"r": {"passes": 3}}}))
    config = load_experiment(path)
    assert run_training(config, "r").passes == 3 and run_training(config, "r").lora.init == "gaussian"
    resolved = write_resolved(config, tmp_path / "resolved")
    own.unlink()
    assert load_experiment(resolved) == config
    path.write_text(yaml.safe_dump({**raw, "training": {"lora": {"init": "gaussian"}}, "runs": {"r": {"passes": 3}}}))
    assert slice_digest(load_experiment(path), "train", "r") == slice_digest(config, "train", "r")


@pytest.mark.parametrize(
    ("where", "keys", "message"),
    [
        ("training", {"preset": "awm-publised"}, "awm-publised: no such preset; did you mean awm-published"),
        ("runs.r", {"preset": "mine"}, "mine: no such preset; known: awm-published"),
        ("runs.r", {"preset": 3}, "3: no such preset"),
        ("runs.r", {"preset": ["awm-published"]}, "no such preset"),
    ],
)
def test_a_preset_that_is_not_there_is_one_line_with_a_suggestion(where, keys, message):
    raw = {**RAW, "training": keys, "runs": {"r": {}}} if where == "training" else {**RAW, "runs": {"r": keys}}
    with pytest.raises(ConfigError, match=message) as caught:
        parse_experiment(raw, "FILE")
    assert str(caught.value).startswith(f"FILE: {where}.preset: ") and "\n" not in str(caught.value)


def test_a_fault_inside_a_preset_is_told_where_the_preset_is_used(tmp_path):
    (tmp_path / "bad.yaml").write_text("learning_rat: 1\n")
    (tmp_path / "torn.yaml").write_text("a: [\n")
    (tmp_path / "nested.yaml").write_text("preset: bad\n")
    expected = {"bad": "runs.r.learning_rat: is not a known key", "torn": "runs.r.preset: .*torn.yaml: not valid YAML",
                "nested": "runs.r.preset: .*nested.yaml: a preset names no other preset"}  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(ConfigError, match=message):
            parse_experiment({**RAW, "runs": {"r": {"preset": name}}}, "FILE", tmp_path)


# --- what else has a choice ------------------------------------------------------------------------------------


def test_padding_is_refused_where_the_family_drops_it():
    padded = {**RAW["models"]["t2i"], "pad_prompts": "masked"}
    for raw, key in (
        ({**RAW, "models": {**RAW["models"], "t2i": padded}}, "models.t2i.pad_prompts"),
        ({**RAW, "runs": {"authors": {"adapter": "a/b", "pad_prompts": "masked"}}}, "runs.authors.pad_prompts"),
    ):
        with pytest.raises(ConfigError, match=f"FILE: {key}: zimage has no such choice") as caught:
            parse_experiment(raw, "FILE")
        assert "\n" not in str(caught.value)
        raw["models"] = {**raw["models"], "t2i": {**raw["models"]["t2i"], "family": "qwenimage"}}
        parse_experiment(raw, "FILE")


def test_new_choices_change_digests_and_their_defaults_do_not():
    """The digests of results that exist: a key at its former value is as if it were not there."""
    from promptecho.config.former_behaviour import FORMER_BEHAVIOUR

    def train_digest(**training):
        return slice_digest(parse_experiment({**RAW, "training": training, "runs": {"r": {}}}), "train", "r")

    plain = train_digest()
    for dotted, former in FORMER_BEHAVIOUR.items():
        if dotted.startswith("training."):
            keys = former
            for part in reversed(dotted.split(".")[1:]):
                keys = {part: keys}
            assert train_digest(**keys) == plain, dotted
    changed = [{"lora": {"init": "gaussian"}}, {"adam_eps": 1e-10}, {"sampling": {"schedule": "scheduler"}},
               {"advantage": {"factor": 0.2}}, {"sampling": {"policy": "ema"}}]  # fmt: skip
    assert len({plain, *(train_digest(**keys) for keys in changed)}) == 1 + len(changed)


def test_several_rewards_without_a_common_size_are_a_warning(tmp_path):
    from typer.testing import CliRunner

    from promptecho.cli import app

    raw = {key: value for key, value in RAW.items() if key != "experiment"}
    two = [{"name": "echo"}, {"name": "inferscore"}]
    expected = {"level": {"advantage": {"scale": "global_std"}}, "one": {"rewards": two[:1]}, "loud": {}}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump({**raw, "rewards": two, "runs": expected}))
    result = CliRunner().invoke(app, ["config", "check", str(path)])
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.output.splitlines() if "warning" in line]
    assert len(warnings) == 1 and f"{path}: warning: runs.loud: 2 rewards (echo and inferscore)" in warnings[0]


def test_two_recipes_are_compared_seed_by_seed_and_over_seeds(tmp_path):
    """Right or wrong of 40 prompts: the second recipe gains on 4, 6 and 8 of them, and loses none."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    from compare_runs import table
    from tables_world import item, write

    for seed, gained in ((1, 4), (2, 6), (3, 8)):
        for recipe, right in (("old", 10), ("new", 10 + gained)):
            items = [item(str(i), 0, "single", float(i < right)) for i in range(40)]
            write(tmp_path, "captions", f"{recipe}-s{seed}", 12, items, {}, benchmark="heldout", experiment="shapes")
            folder = tmp_path / "shapes" / "runs" / f"{recipe}-s{seed}" / "12"
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text('{"iteration": 12, "heldout_reward": %f}\n' % (right / 100))
    lines = table(tmp_path / "shapes", "old", "new", 12, "heldout").splitlines()
    assert [line.split("|")[1:4] for line in lines[2:6]] == [
        [" 1 ", " 25.0 ", " 35.0 "], [" 2 ", " 25.0 ", " 40.0 "], [" 3 ", " 25.0 ", " 45.0 "],
        [" 3 seeds, over prompts ", " 25.0 ", " 40.0 "],
    ]  # fmt: skip
    # Differences of 10, 15 and 20 points: mean 15, standard deviation 5, t 4.303 with 2 degrees of freedom.
    assert "+15.0 [+2.6, +27.4]" in lines[6] and "+0.060 [+0.010, +0.110]" in lines[6]
    assert "| +0.060 |" in lines[3]


def test_the_runs_of_make_recipes_are_what_their_names_say():
    from promptecho.config.resolve import resolve

    root = Path(__file__).resolve().parents[2]
    printed = subprocess.run(["make", "-n", "recipes"], cwd=root, capture_output=True, text=True, check=True).stdout
    (changes,) = re.findall(r"'set=(shapes\.runs\.kaiming[^']*)'", printed)
    site = {"experiments": ["shapes"], "experiments_dir": str(root / "config" / "experiments"), "set": changes}
    config = resolve(site)["shapes"]
    runs = {name: run_training(config, name) for name in config.runs if name != "promptecho-s1"}
    names = ("kaiming", "gaussian", "awm", "once", "anew")
    assert set(runs) == {f"{name}-s{seed}" for name in names for seed in (1, 2, 3)}
    for name, run in runs.items():
        assert f"-s{run.seed}" in name and run.checkpoint_steps == [12]
        assert run.prompts_per_iteration * run.images_per_prompt == 96
        assert (run.lora.init == "gaussian") == name.startswith(("gaussian", "awm"))
        assert (run.timesteps.redraw == "pass") == name.startswith("anew")
        assert (run.passes == 4 and run.learning_rate == 1e-4) == name.startswith(("anew", "once"))
        assert (run.clip_range == 1 and run.batch_size == 96 and run.advantage.factor == 0.2) == name.startswith("awm")
    # The baseline is the demo's recipe: its first iterations are those of the demo's own run.
    assert slice_digest(config, "train", "kaiming-s1") == slice_digest(config, "train", "promptecho-s1")
