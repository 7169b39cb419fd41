"""Runs that begin with an adapter: what is refused, what they are bound to, and that stops change no bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_t2i
import torch
from tiny_experiment import Experiment, metrics_without_times, same_bytes
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, parse_experiment
from promptecho.config.changes import changes
from promptecho.config.families import family_named
from promptecho.config.inputs import inputs_of
from promptecho.config.slices import slice_digest, slice_value
from promptecho.config.training_parts import LoraSection
from promptecho.doctor.initial_adapters import initial_adapters, initial_misfits
from promptecho.doctor.preflight import make_preflight
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json
from promptecho.t2i.comfyui import COMFYUI_FILE
from promptecho.t2i.external import convert_adapter, load_target
from promptecho.t2i.initial import initial_weights
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.train.loop import train_segment

torch.set_num_threads(1)
RUNS = {"a": {"checkpoint_every": 100}, "start": {"adapter": "org/start"}, "b": {"init_adapter": "start"}}


def experiment(runs: dict, **training):
    models = {"t2i": {"family": "zimage", "path": "org/t2i"}, "vlm": {"path": "org/vlm"}}
    captions = {"prompts": "prompts.txt", "heldout": 0}
    return parse_experiment(
        {"models": models, "captions": captions, "experiment": "e", "training": training, "runs": runs}
    )


@pytest.mark.parametrize(
    "init_adapter, told",
    [
        ("stat", "no such entry of runs (known: start, a@STEP, c@STEP); did you mean start?"),
        ("my/adapter", "`runs: {start: {adapter: my/adapter}}`"),
        ("start@1", "start is an adapter and has no checkpoints; write start alone"),
        ("a", "no checkpoint of run a (known: a@100, a@200, a@300)"),
        ("a@150", "no checkpoint of run a (known: a@100, a@200, a@300)"),
        ("c@300", "has another adapter than this run; set lora.rank: 8, lora.layers: attention"),
        ("b@300", "b begins with b: a circle"),
    ],
)
def test_what_cannot_be_begun_with_is_refused(init_adapter, told):
    other = {"lora": {"rank": 8, "layers": "attention"}}
    with pytest.raises(ConfigError) as caught:
        experiment({**RUNS, "c": other, "b": {"init_adapter": init_adapter}})
    assert "runs.b.init_adapter: " in str(caught.value) and told in str(caught.value)


def test_layers_mean_nothing_beside_target_modules():
    lora = {"target_modules": ["to_q"]}
    experiment({"a": {"lora": lora}, "b": {"lora": {**lora, "layers": "attention"}, "init_adapter": "a@300"}})


def test_a_circle_of_runs_is_refused():
    with pytest.raises(ConfigError, match="a begins with b begins with a: a circle"):
        experiment({"a": {"init_adapter": "b@300"}, "b": {"init_adapter": "a@300"}})


def test_a_run_is_bound_to_what_it_began_with():
    plain = slice_value(experiment(RUNS), "train", "a")
    assert "init_adapter" not in plain["training"]
    began = slice_digest(experiment(RUNS), "train", "b")
    renamed = {"other": {"adapter": "org/start", "step": 7}, "b": {"init_adapter": "other"}}
    assert slice_digest(experiment(renamed), "train", "b") == began
    alpha = {"start": {"adapter": "org/start", "alpha": 4.0}, "b": {"init_adapter": "start"}}
    both = [slice_value(experiment(runs), "train", "b") for runs in (RUNS, alpha)]
    assert [change.path for change in changes("train", *both)] == ["training.init_adapter.alpha"]
    assert inputs_of(experiment(RUNS), "train", "b")["runs.start.adapter"] == "org/start"
    runs = {"a": {"checkpoint_every": 100}, "b": {"init_adapter": "a@100"}}
    found = {
        slice_digest(experiment({**runs, **more}, **training), "train", "b")
        for more, training in (
            ({}, {}), ({"b": {"init_adapter": "a@200"}}, {}), ({"a": {"checkpoint_every": 100, "seed": 2}}, {}),
            ({}, {"timeout_s": 7}),
        )
    }  # fmt: skip
    assert len(found) == 3


class Saved:
    """An adapter with random weights on the tiny Z-Image model, saved."""

    def __init__(self, folder: Path, **lora):
        family = load_family("zimage", str(tiny_t2i.shared_folder()))
        self.lora = LoraSection(**{"rank": 4, "alpha": 8, **lora})
        model = add_lora(family.transformer, self.lora, 0, family.lora_targets)
        generator = torch.Generator().manual_seed(1)
        self.weights = {
            name: torch.randn(p.shape, generator=generator) * 0.1 for name, p in trained_parameters(model).items()
        }
        save_adapter(model, self.weights, folder, family.descriptor)

    def read(self, folder: Path, **lora) -> dict[str, torch.Tensor]:
        family = load_family("zimage", str(tiny_t2i.shared_folder()))
        section = self.lora.model_copy(update=lora)
        return initial_weights(folder, family.transformer, section, family.lora_targets)


def test_the_weights_are_those_of_any_format_and_must_fit(tmp_path):
    saved = Saved(tmp_path / "ours", layers="attention")
    target = load_target(family_named("zimage"), str(tiny_t2i.shared_folder()))
    convert_adapter(tmp_path / "ours" / COMFYUI_FILE, tmp_path / "theirs", target)
    for name in ("ours", "theirs"):
        found = saved.read(tmp_path / name)
        assert found.keys() == saved.weights.keys()
        assert all(torch.equal(found[key], value) for key, value in saved.weights.items())
    for wrong, fix in (
        ({"rank": 8}, "its rank is 4, the run's 8; set training.lora.rank: 4"),
        ({"alpha": 4.0}, "its alpha is 8, the run's 4; set training.lora.alpha: 8"),
        ({"layers": "all"}, "set training.lora.layers: attention, and target_modules: null"),
    ):
        with pytest.raises(DataError) as caught:
            saved.read(tmp_path / "theirs", **wrong)
        assert "training.init_adapter: " in str(caught.value) and fix in str(caught.value)
    few = Saved(tmp_path / "few", target_modules=["to_q", "feed_forward.w1"])
    with pytest.raises(DataError, match=r"set training.lora.target_modules: \[to_q, w1\]"):
        few.read(tmp_path / "few", target_modules=None)
    assert few.read(tmp_path / "few", target_modules=["to_q", "w1"]).keys() == few.weights.keys()


def test_what_does_not_fit_is_told_by_the_check_and_the_doctor(tmp_path):
    tiny = Experiment(tmp_path)
    Saved(tmp_path / "start", layers="attention")
    (tmp_path / "broken").mkdir()
    runs = {name: {"init_adapter": "start", "lora": {"layers": "attention", "rank": rank, "alpha": 8}}
            for name, rank in (("fits", 4), ("odd", 8))}  # fmt: skip
    runs |= {"wide": {"init_adapter": "start"}, "empty": {"init_adapter": "broken"}, "far": {"init_adapter": "hub"}}
    runs |= {name: {"adapter": str(tmp_path / name)} for name in ("start", "broken")} | {"hub": {"adapter": "a/b"}}
    config = tiny.config("fits", sections={"runs": runs})
    found = initial_misfits(load_experiment(config))
    assert found.keys() == {"fits", "odd", "wide", "empty"} and found["fits"] == ""
    assert "start: training.init_adapter: its rank is 4, the run's 8; set training.lora.rank: 4" in found["odd"]
    assert "set training.lora.layers: attention" in found["wide"] and str(tmp_path / "broken") in found["empty"]
    result = CliRunner().invoke(app, ["config", "check", str(config)])
    assert all(f"runs.{run}: " in str(result.exception) for run in ("odd", "wide", "empty"))
    told = {one.what.split(":")[0]: one.severity for one in initial_adapters(make_preflight(config, None))}
    assert told == {
        "runs.fits.init_adapter": "fine",
        **dict.fromkeys(("runs.odd", "runs.wide", "runs.empty"), "problem"),
    }


def test_training_begins_with_it_and_stops_change_no_bit(tmp_path):
    tiny = Experiment(tmp_path)
    Saved(tmp_path / "start")
    once = {"iterations": 2, "checkpoints": [1, 2], "passes": 1, "batch_size": 8}
    runs = {"runs": {"r": {"init_adapter": "start"}, "start": {"adapter": str(tmp_path / "start")}}}
    config = tiny.config("warm", sections=runs, **once)
    begins = {"init_adapter": tmp_path / "start"}
    first = tiny.segment("parts", config, 1, **begins)
    second = tiny.segment("parts", config, 2, resume=first.out, **begins)
    straight = tiny.segment("whole", config, 2, **begins)
    assert train_segment(first) and train_segment(second) and train_segment(straight)
    assert same_bytes(second.out, straight.out) == []
    (row,) = metrics_without_times(first.out)
    # The policy is its own past, and not the base model any more.
    assert row["ratio_mean"] == pytest.approx(1, abs=1e-6) and row["kl_base"] > 1e-6
    assert read_json(first.out / "state/state.json")["digests"]["initial adapter"]
    Saved(tmp_path / "other", alpha=8.0, init="gaussian")
    (tmp_path / "other/adapter_model.safetensors").write_bytes(b"another one")
    other = tiny.segment("parts2", config, 2, resume=first.out, init_adapter=tmp_path / "other")
    from promptecho.train.start import digests_of
    from promptecho.train.state import load_state

    training = load_experiment(config).runs["r"]
    with pytest.raises(Exception, match="belongs to another initial adapter"):
        load_state(first.out / "state", digests_of(other, training), use=object())
