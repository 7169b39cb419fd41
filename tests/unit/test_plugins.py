"""Rewards from outside: found beside a file or among installed packages, and refused in one line where they fail."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from promptecho import plugins
from promptecho.cli import app
from promptecho.config import load_experiment, needs_vlm, slice_digest
from promptecho.config.descriptors import REWARDS, SHARED, Reward
from promptecho.config.resolve import resolve
from promptecho.config.rewards import GuardSection, RewardSection
from promptecho.errors import ConfigError, RewardError
from promptecho.rewards import RewardContext, make_reward

SHARPNESS = '''
from promptecho.rewards import Reward, Section


class Options(Section):
    scale: float = 1.0


def build(context):
    """A reward that needs no VLM: how much neighbouring pixels differ."""
    import numpy as np

    def sharpness(images, prompts, prompt_ids):
        grey = [np.asarray(image.convert("L"), dtype=float) for image in images]
        return [context.options.scale * float(np.abs(np.diff(one)).mean()) for one in grey]

    return sharpness


REWARD = Reward(
    name="NAME", summary="sharpness", build="MODULE:build", options=Options, needs_vlm=False, version=VERSION
)
'''


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """Each test has a registry, a path and modules of its own, and starts in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(REWARDS, "named", {})
    monkeypatch.setattr(REWARDS, "_loaded", {})
    monkeypatch.setattr(plugins, "_allowed", False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()


def module(
    folder: Path, name: str = "sharp", reward: str = "sharpness", version: int = 1, text: str = SHARPNESS
) -> Path:
    """Write a module with a reward; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = text.replace("NAME", reward).replace("MODULE", name).replace("VERSION", str(version))
    (folder / f"{name}.py").write_text(text)
    return folder


def experiment(
    folder: Path, specs: list | None = None, rewards: list | None = None, name: str = "e", **training
) -> Path:
    """Write an experiment file; returns its path."""
    content = {
        "models": {"t2i": {"family": "zimage", "path": "t2i"}, "vlm": {"path": "vlm"}},
        "captions": {"prompts": "prompts.txt", "heldout": 0},
        "training": training,
        "rewards": rewards or [{"name": "sharpness"}],
        "runs": {"r": {}},
    }
    content |= {"plugins": ["sharp:REWARD"] if specs is None else specs}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / f"{name}.yaml"


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    return str(caught.value)


# Found, used.


def test_a_file_beside_the_experiment_is_found_and_can_be_built(tmp_path):
    rewards = [{"name": "sharpness", "sharpness": {"scale": "2"}}, {"name": "echo", "weight": 0.5}]
    config = load_experiment(experiment(module(tmp_path / "mine"), rewards=rewards))
    assert config.plugins_folder == str(tmp_path / "mine") and needs_vlm(config, "r")
    assert config.rewards[0].options.scale == 2.0 and config.rewards[1].options.reduction == "mean"
    from PIL import Image

    flat, edge = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))
    edge.paste((255, 255, 255), (0, 0, 2, 4))
    built = make_reward("sharpness", RewardContext(options=config.rewards[0].options))
    assert built([flat, edge], ["a", "b"], ["0", "1"]) == [0.0, pytest.approx(2 * 255 / 3)]
    assert not needs_vlm(load_experiment(experiment(tmp_path / "mine")), "r")


def test_a_resolved_configuration_finds_it_from_anywhere_below(tmp_path):
    from promptecho.config import write_resolved

    experiment(module(tmp_path / "mine"))
    config = resolve({"experiments": ["e"], "experiments_dir": "mine"})["e"]
    path = write_resolved(config, tmp_path / "results/e/config")
    assert load_experiment(path) == config and config.plugins_folder == "mine"
    experiment(tmp_path / "mine", name="f")  # as other experiments of that folder do
    assert resolve({"experiments": ["e", "f"], "experiments_dir": "mine"})["f"].rewards == config.rewards


def test_what_one_experiment_names_is_not_there_for_another(tmp_path):
    load_experiment(experiment(module(tmp_path / "mine")))
    text = refusal(experiment(tmp_path / "other", specs=[]))
    assert "'http' or 'served_echo' (found 'sharpness'); a reward from outs" in text


def installed(folder: Path, package: str, points: dict[str, str]) -> None:
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = "\n".join(f"{name} = {spec}" for name, spec in points.items())
    (info / "entry_points.txt").write_text(f"[promptecho.rewards]\n{lines}\n")
    sys.path.append(str(folder))
    importlib.invalidate_caches()


def test_an_installed_package_brings_one_without_a_word_in_the_file(tmp_path):
    installed(module(tmp_path / "site"), "their-rewards", {"sharpness": "sharp:REWARD"})
    config = load_experiment(experiment(tmp_path / "e", specs=[]))
    found = REWARDS.find("sharpness")
    assert (found.origin, found.is_ours) == ("their-rewards 1.2", False) and config.rewards[0].reward is found.thing
    # The same object named in a file, too, is no second one.
    load_experiment(experiment(tmp_path / "e"))
    rows = CliRunner().invoke(app, ["list", "rewards", "--json"]).output
    assert '"from": "their-rewards 1.2"' in rows and '"from": "promptecho"' in rows


def test_a_broken_package_harms_only_who_uses_it(tmp_path):
    installed(module(tmp_path / "site", text="import no_such_thing\n"), "broken", {"sharpness": "sharp:REWARD"})
    load_experiment(experiment(tmp_path / "e", specs=[], rewards=[{"name": "echo"}]))
    problem = "reward sharpness (broken 1.2): sharp:REWARD: its import fails: No module named 'no_such_thing'"
    assert f"rewards.0.name: {problem}" in refusal(experiment(tmp_path / "e", specs=[]))
    listed = CliRunner().invoke(app, ["list", "rewards", "--json"])
    assert problem in listed.output and listed.exit_code == 0


def test_the_command_asks_one_without_a_vlm_with_any_of_its_settings(tmp_path):
    import json

    from PIL import Image

    picture = Image.new("RGB", (4, 4))
    picture.paste((255, 255, 255), (0, 0, 2, 4))
    picture.save("a.png")
    config = experiment(module(tmp_path / "mine"), rewards=[{"name": "sharpness", "sharpness": {"scale": 2}}])
    words = ["reward", "--name", "sharpness", "--config", str(config), "--label", "x", "a.png"]
    [row] = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert row == {"image": "a.png", "reward": pytest.approx(2 * 255 / 3)}
    [row] = json.loads(CliRunner().invoke(app, [*words, "--json", "--set", "scale=3"]).output)
    assert row["reward"] == pytest.approx(255)
    assert f"{2 * 255 / 3:.4f}" in CliRunner().invoke(app, words).output
    for wrong in (["--set", "scael=3"], ["--set", "scale=wide"], ["--set", "scale"]):
        error = CliRunner().invoke(app, [*words, *wrong]).exception
        assert isinstance(error, ConfigError) and str(error).startswith("--set sc"), wrong
    for wrong in (["--query", "Q"], ["--temperature", "1"], ["--include-eos"], ["--name", "sharp"]):
        assert CliRunner().invoke(app, [*words, *wrong]).exit_code == 2, wrong


# Two of one name.


def test_two_of_one_name_are_refused_by_both_their_names(tmp_path):
    text = refusal(experiment(module(tmp_path / "mine", reward="echo"), rewards=[{"name": "echo"}]))
    other = "promptecho.rewards.echo:REWARD of promptecho"
    assert text.endswith(f"plugins.0: sharp:REWARD is called echo as {other} is; give it another name")
    for package in ("one", "two"):
        installed(module(tmp_path / package, name=f"of_{package}"), package, {"sharpness": f"of_{package}:REWARD"})
    text = refusal(experiment(tmp_path / "e", specs=[]))
    assert "two are called sharpness: of_one:REWARD of one 1.2 and of_two:REWARD of two 1.2; uninstall or" in text


def test_a_module_that_another_hides_is_refused_rather_than_replaced(tmp_path):
    load_experiment(experiment(module(tmp_path / "mine")))
    text = refusal(experiment(module(tmp_path / "copy")))
    hidden = f"{tmp_path / 'copy/sharp.py'} is hidden by {tmp_path / 'mine/sharp.py'}, which has the same name"
    assert f"plugins.0: sharp:REWARD: {hidden}; rename sharp" in text


# What cannot be used: one line with file, key and cause.


@pytest.mark.parametrize(
    ("spec", "text", "told"),
    [
        ("sharp", "", "expected MODULE:OBJECT, such as my_reward:REWARD (found 'sharp')"),
        ("nowhere:REWARD", "", "no module nowhere in {folder}, nor on Python's path"),
        ("sharp.deeper:REWARD", "", "no module sharp.deeper in {folder}, nor on Python's path"),
        ("sharp:REWRAD", "REWARD = 1", "{folder}/sharp.py has no REWRAD; did you mean REWARD?"),
        ("sharp:REWARD", "REWARD = 1", "sharp:REWARD is of type int, not a Reward"),
        ("sharp:REWARD", "class REWARD: pass", "sharp:REWARD is the class REWARD, not a Reward"),
        ("sharp:REWARD", "import nmupy", "its import fails: No module named 'nmupy'; install that module"),
        ("sharp:REWARD", "x = 1\n1 / 0", "fails: ZeroDivisionError: division by zero ({folder}/sharp.py, line 2)"),
        ("sharp:REWARD", "def f(:\n  pass", "fails: SyntaxError: invalid syntax ({folder}/sharp.py, line 1)"),
        ("sharp:REWARD", "raise SystemExit(3)", "its import fails: SystemExit: 3 ({folder}/sharp.py, line 1)"),
        ("sharp:REWARD", SHARPNESS.replace("NAME", "weight"), "Reward: name 'weight': take lower-case letters"),
        ("sharp:REWARD", SHARPNESS.replace("MODULE:build", "build"), "Reward: build 'build': expected MODULE:OBJECT"),
        ("sharp:REWARD", SHARPNESS.replace("float = 1.0", "float"), "Reward: options: scale: must have a default"),
        ("sharp:REWARD", SHARPNESS.replace("version=VERSION", "version=0"), "Reward: version 0: count from 1"),
        ("sharp:REWARD", SHARPNESS.replace("version=VERSION", "version='2'"), "Reward: version '2': expected a whole"),
        ("sharp:REWARD", SHARPNESS.replace('"MODULE:build"', "build"), "expected a text"),
        ("sharp:REWARD", SHARPNESS.replace("=False", "='no'"), "Reward: needs_vlm 'no': expected True or False"),
        ("sharp:REWARD", SHARPNESS.replace("=False", "=False, template='q.txt'"), "'q.txt': expected a pathlib.Path"),
        ("sharp:REWARD", SHARPNESS.replace("=False", "=False, takes='query'"), "takes 'query': expected several texts"),
        ("sharp:REWARD", SHARPNESS.replace(":build", ":biuld"), "sharp has no biuld; did you mean build?"),
        ("sharp:REWARD", SHARPNESS.replace("MODULE:", "shrap:"), "build 'shrap:build': no module shrap; correct build"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_one_line_with_its_key(tmp_path, spec, text, told):
    folder = module(tmp_path / "mine", text=text)
    [line] = refusal(experiment(folder, specs=[spec])).splitlines()
    assert line.startswith(f"{folder / 'e.yaml'}: plugins.0: ") and told.format(folder=folder) in line


def test_faults_in_the_file_are_told_beside_those_of_plugins(tmp_path):
    text = refusal(experiment(tmp_path / "e", specs=["a:A", 3], learnin_rate=1))
    keys = [line.removeprefix(f"{tmp_path / 'e/e.yaml'}: ").split(":")[0] for line in text.splitlines()]
    assert keys == ["plugins.0", "plugins.1", "training.learnin_rate"]


def test_its_settings_are_checked_like_our_own(tmp_path):
    folder = module(tmp_path / "mine")
    wrong = [{"name": "sharpness", "sharpness": {"scael": 1, "scale": "wide"}}, {"name": "sharpness", "query": "Q"}]
    wrong += [{"name": "echo", "sharpness": {}}, {"name": "sharpness", "colour": {}}, {"name": "sharpnes"}]
    found = dict(line.split(": ")[1:3] for line in refusal(experiment(folder, rewards=wrong)).splitlines())
    assert found["rewards.0.sharpness.scael"] == "is not a known key; did you mean scale?"
    assert found["rewards.0.sharpness.scale"].startswith("input should be a valid number")
    assert found["rewards.1.query"] == "sharpness has none; remove it"
    assert found["rewards.2.sharpness"].startswith("echo has no such settings; remove it, or set name")
    assert "rewards.3.colour" in found and found["rewards.4.name"].endswith("did you mean sharpness?")


def test_a_placement_of_the_vlm_is_refused_where_there_is_none(tmp_path):
    folder = module(tmp_path / "mine")
    for mode in ("offloaded", "dedicated"):
        text = refusal(experiment(folder, reward_placement={"mode": mode}))
        assert f"reward_placement.mode: {mode} says where the reward's VLM sits, and sharpness needs none" in text
    for mode in ("colocated", "replicated"):
        load_experiment(experiment(folder, reward_placement={"mode": mode}))
    both = [{"name": "sharpness"}, {"name": "echo"}]
    load_experiment(experiment(folder, rewards=both, reward_placement={"mode": "dedicated"}))


# Trust.


def test_a_file_from_elsewhere_runs_no_code_unless_that_is_allowed(tmp_path, monkeypatch):
    path = experiment(module(tmp_path / "theirs", text=f"open({str(tmp_path / 'ran')!r}, 'w')\n{SHARPNESS}"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = refusal(path)
    assert "names code that would run with your rights (sharp:REWARD)" in text and "--allow-plugins" in text
    with pytest.raises(ConfigError, match="--config allow_plugins=true"):
        resolve({"experiments": ["e"], "experiments_dir": str(path.parent)})
    assert not (tmp_path / "ran").exists()
    (tmp_path / "here/link").symlink_to(path.parent)  # who puts a link here has said so
    assert load_experiment("link/e.yaml").plugins_folder == "link"
    assert (tmp_path / "ran").exists()
    site = {"experiments": ["e"], "experiments_dir": str(path.parent), "allow_plugins": True}
    assert resolve(site)["e"].rewards[0].name == "sharpness" and load_experiment(path)


# Digests.


def test_its_version_and_settings_decide_what_is_trained_again(tmp_path):
    def trained(version: int, **options) -> str:
        REWARDS.named.clear()
        sys.modules.pop("sharp", None)
        importlib.invalidate_caches()
        folder = module(tmp_path / f"v{version}", version=version)
        config = load_experiment(experiment(folder, rewards=[{"name": "sharpness", "sharpness": options}]))
        sys.path.remove(str(folder))
        return slice_digest(config, "train", "r")

    first = trained(1)
    assert trained(1) == first == trained(1, scale=1.0) and trained(2) != first != trained(1, scale=2.0)


def test_names_of_shared_keys_are_no_names_of_rewards():
    assert set(SHARED) == {*RewardSection.model_fields, *GuardSection.model_fields}


def test_measures_are_no_names_of_metrics():
    for name in ("reward", "failed_share", "advantage_size", "heldout_reward"):
        with pytest.raises(ValueError, match=f"measures .*{name}.*: metrics of that name exist already"):
            Reward(name="bad", summary="", build="a:b", measures=("fine", name))


# Code that fails while it is used.


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return [1.0]", "gave 1 values for 2 images; it must give a list of 2 numbers"),
        ("return None", "gave a NoneType for 2 images; it must give a list of 2 numbers"),
        ("return ['high', 'low']", "gave something that is no number"),
        ("f.score = lambda *given: [ImageScore(1.0)]", "gave 1 scores for 2 images; `score` must give a list of 2"),
        ("f.score = lambda *given: [1.0, 2.0]", "gave a float; `score` must give a list of 2 ImageScore"),
        ("f.score = lambda *given: [ImageScore(1.0, measures=None)] * 2", "measures None: must be numbers by name"),
        ("f.score = lambda *given: [ImageScore(1.0, measures={'a': 'x'})] * 2", "a is 'x'; must be a number"),
        ("f.score = lambda *given: [ImageScore(1.0, measures={'a': 1e999})] * 2", "a is inf; must be a number"),
        ("f.score = lambda *given: [ImageScore(None)] * 2", "reward is None; must be a number"),
        ("return prompts['a']", "its code fails: TypeError: list indices must be integers or slices, not str"),
    ],
)
def test_code_that_fails_is_told_with_the_name_of_the_reward(tmp_path, body, told):
    body = body if body.startswith("f.") else f"def f(images, prompts, ids): {body}"
    text = "from promptecho.rewards import ImageScore\n"
    text += f"def build(context):\n    def f(*given): pass\n    {body}\n    return f\n"
    (tmp_path / "failing.py").write_text(text)
    thing = Reward(name="bad", summary="", build="failing:build", needs_vlm=False)
    sys.path.append(str(tmp_path))
    REWARDS.add(thing, "failing:REWARD", "e.yaml: plugins.0")
    with pytest.raises(RewardError) as caught:
        make_reward("bad", RewardContext())([None, None], ["a", "b"], ["0", "1"])
    assert str(caught.value).startswith("reward bad (failing:REWARD of e.yaml: plugins.0): ")
    assert told in str(caught.value)
