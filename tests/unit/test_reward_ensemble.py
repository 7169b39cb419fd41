"""Several VLMs as an ensemble: entries of `rewards` that name a VLM of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny_t2i
import tiny_vlm
from forked import ranks, run
from PIL import Image
from tiny_experiment import Experiment, metrics_without_times
from typer.testing import CliRunner

from promptecho.audit.candidates import candidates_of
from promptecho.captions.settings import read_settings
from promptecho.cli import app
from promptecho.config import load_experiment, run_vlms, slice_digest
from promptecho.config.inputs import inputs_of
from promptecho.errors import ConfigError
from promptecho.models.required import required_models
from promptecho.rewards import RewardContext, make_reward
from promptecho.train.loop import train_segment
from promptecho.train.scoring import distinct_vlms
from promptecho.vlm import load_vlm

SHORT = {
    "iterations": 1, "checkpoints": [1], "passes": 1, "batch_size": 8, "sampling": {"num_inference_steps": 1},
    "timesteps": {"per_sample": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return tiny_vlm.build(tmp_path_factory.mktemp("other-vlm"), seed=1)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("ensemble"), t2i=tiny_t2i.shallow_folder())


def ensemble(experiment: Experiment, other: Path, name: str = "exp", *, vlm: str = "other", **training) -> Path:
    """An experiment whose second and third rewards are of another VLM."""
    path = experiment.config(name, **SHORT | training)
    text = path.read_text().replace("models:\n", f"models:\n  vlms: {{other: {{path: {other}, dtype: float32}}}}\n")
    second = f"{{name: echo, vlm: {vlm}, weight: 0.5, batch_size: 1}}, {{name: weighted_echo, vlm: {vlm}}}"
    path.write_text(f"{text}rewards: [{{name: echo, batch_size: 1}}, {second}]\n")
    return path


def test_each_reward_has_its_own_vlm_and_one_named_twice_is_loaded_once(experiment, other, train_in_process):
    from promptecho.train import setup

    kept, build = [], setup.with_models
    setup.with_models = lambda *given: kept.append(build(*given)) or kept[-1]
    try:
        assert train_segment(experiment.segment("alone", ensemble(experiment, other), 1))
    finally:
        setup.with_models = build
    (entries,) = kept
    assert [vlm.path for vlm in distinct_vlms(entries)] == [str(experiment.vlm), str(other)]
    assert entries[1].vlm is entries[2].vlm
    images, prompts = [Image.new("RGB", (32, 32), "red")], ["A red circle."]
    for entry, folder in zip(entries, (experiment.vlm, other, other), strict=True):
        alone = make_reward(entry.name, RewardContext(vlm=load_vlm(folder), query=entry.context.query))
        assert entry.reward(images, prompts, ["p"]) == alone(images, prompts, ["p"])


@pytest.mark.parametrize(
    ("name", "count", "placement"),
    [
        ("colocated", 3, {"mode": "colocated"}),  # ranks have three, three and two images, each a pass
        ("served", 3, {"mode": "dedicated", "per_node": 2, "gather": "phase"}),
    ],
)
def test_ranks_that_share_several_vlms_give_the_rewards_of_one_process(experiment, other, name, count, placement):
    config = ensemble(experiment, other, name, reward_placement=placement)
    run(experiment.train(config, 1, name), ranks(count))
    if not (experiment.folder / "alone" / "1").is_dir():
        assert train_segment(experiment.segment("alone", ensemble(experiment, other), 1))
    ours, theirs = (metrics_without_times(experiment.folder / one / "1")[-1] for one in (name, "alone"))
    told = [key for key in theirs if key.startswith(("reward_", "advantage_size"))]
    assert len(told) >= 6
    for key in told:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key


def test_what_needs_models_knows_all_of_them(experiment, other):
    config = load_experiment(ensemble(experiment, other))
    assert list(run_vlms(config, "r")) == ["models.vlm", "models.vlms.other"]
    keys = {model.source: model.keys for model in required_models(config)}
    assert keys[str(other)] == ("models.vlms.other.path",) and keys[str(experiment.vlm)] == ("models.vlm.path",)
    assert inputs_of(config, "train", "r")["models.vlms.other.path"] == str(other)


def test_the_digest_knows_a_vlm_by_what_it_is_and_is_as_before_without_one(experiment, other):
    plain = load_experiment(experiment.config("plain", **SHORT))
    named = plain.models.model_copy(update={"vlms": {"other": plain.models.vlm}})
    assert slice_digest(plain, "train", "r") == slice_digest(plain.model_copy(update={"models": named}), "train", "r")
    one = load_experiment(ensemble(experiment, other, "one"))
    renamed = one.model_dump(mode="json")
    renamed["models"]["vlms"] = {"b": renamed["models"]["vlms"].pop("other")}
    for entry in renamed["rewards"]:
        entry["vlm"] = entry["vlm"] and "b"
    from promptecho.config.load import parse_experiment

    digest = slice_digest(one, "train", "r")
    assert digest == slice_digest(parse_experiment(renamed, "b"), "train", "r") != slice_digest(plain, "train", "r")
    renamed["models"]["vlms"]["b"]["dtype"] = "bfloat16"
    assert digest != slice_digest(parse_experiment(renamed, "b"), "train", "r")


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ("[{name: echo, vlm: othr}]", "rewards.0.vlm: othr: no such entry of models.vlms (known: other)"),
        ("[{name: clipscore_stub, vlm: other}]", "rewards.0.vlm: clipscore_stub is given by no VLM; remove it"),
    ],
)
def test_a_vlm_that_cannot_be_is_refused_by_its_key(experiment, other, rewards, told, monkeypatch):
    from promptecho.config.descriptors import REWARDS

    stub = experiment.folder / "clipscore_stub.py"
    stub.write_text(
        "from promptecho.rewards import Reward\n"
        "REWARD = Reward(name='clipscore_stub', summary='none', build='clipscore_stub:build', needs_vlm=False)\n"
        "def build(context): ...\n"
    )
    monkeypatch.setattr(REWARDS, "named", {})
    monkeypatch.chdir(experiment.folder)
    path = ensemble(experiment, other, "wrong")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("rewards:")]
    path.write_text("\n".join([*lines, 'plugins: ["clipscore_stub:REWARD"]', f"rewards: {rewards}"]))
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert told in str(caught.value)


def test_commands_take_the_vlm_of_an_entry_or_a_name(experiment, other, tmp_path):
    config = ensemble(experiment, other, "commands")
    found = candidates_of(read_settings(config), config, [], [], [], None, False)
    assert [(one.reward, one.vlm) for one in found] == [
        ("echo", str(experiment.vlm)), ("echo", str(other)), ("weighted_echo", str(other)),
    ]  # fmt: skip
    both = candidates_of(read_settings(config), config, ["other"], [], ["echo"], None, False)
    assert [one.vlm for one in both] == [str(other)]
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    told = {}
    for name, more in {"echo": [], "named": ["--vlm", "other"], "weighted_echo": []}.items():
        reward = "echo" if name == "named" else name
        result = CliRunner().invoke(
            app,
            ["reward", str(tmp_path / "red.png"), "--config", str(config), "--name", reward, "--label", "A red circle.",
             "--device", "cpu", "--json", *more],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        told[name] = json.loads(result.stdout)[0]["reward"]
    context = RewardContext(vlm=load_vlm(other))
    image = Image.open(tmp_path / "red.png").convert("RGB")
    for name, reward in {"named": "echo", "weighted_echo": "weighted_echo"}.items():
        assert math.isclose(told[name], make_reward(reward, context)([image], ["A red circle."], ["p"])[0])
    assert told["echo"] != told["named"]


def test_a_plan_counts_the_memory_of_each_vlm_once(experiment, other):
    from promptecho.plan.gpus import known
    from promptecho.plan.plan import Planner
    from promptecho.plan.result import Cluster
    from promptecho.plan.settings import Settings

    config = load_experiment(ensemble(experiment, other, "planned"))
    planner = Planner(Settings(1.0, 1.0, 1.0, 1.0, 16, 1, config.captions.query, True))
    cluster = Cluster(known()["h100"], 1, 1)
    first, second, again = planner.vlms(config, "r")
    assert second is again and first is not second
    plan = planner.run(config, cluster, "r")
    assert plan.memory[0].held["reward VLM"] == first.bytes + second.bytes
    assert plan.models["reward VLM"] == f"{experiment.vlm} and {other}"
