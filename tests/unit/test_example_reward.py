"""A reward from outside, end to end: the example's folder, copied elsewhere, and one that needs no VLM at all.

All of it runs as commands in another folder than the checkout's, and nothing of the project changes for it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from forked import ended, run
from test_plugins import module
from tiny_experiment import Experiment
from tiny_vlm import image

from promptecho.files import read_jsonl

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "reward"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(*words: object) -> list | dict:
    return json.loads(ended([*map(str, words), "--json"])[0])


def test_the_example_is_checked_planned_asked_and_trained_with(folder):
    shutil.copytree(EXAMPLE, folder / "mine")
    config = "mine/shapes-yes.yaml"
    run(["config", "check", config])
    yes = facts("list", "rewards", "--config", config)[-1]
    assert (yes["name"], yes["settings"], yes["from"]) == ("yes", ["answer", "against"], f"{config}: plugins.0")

    image(0).save("a.png")
    [asked] = facts("reward", "--name", "yes", "--config", config, "--label", "A star.", "a.png")
    question = (EXAMPLE / "question.txt").read_text().replace("{prompt}", "A star.")
    echo = ("reward", "--config", config, "--query", question, "a.png", "--label")
    for_yes, for_no = (sum(facts(*echo, answer)[0]["log_probs"]) for answer in ("Yes", "No"))
    assert asked["reward"] == pytest.approx(for_yes - for_no, abs=1e-4)
    other = ("reward", "--name", "yes", "--config", config, "--label", "A star.", "--set", "against=Maybe")
    assert facts(*other, "a.png")[0]["reward"] != asked["reward"]

    # As the workflow does it: jobs read the resolved configuration.
    changes = "shapes-yes.captions.shapes=null shapes-yes.captions.prompts=p.txt shapes-yes.captions.heldout=0"
    changes += " shapes-yes.image_sets={} shapes-yes.benchmarks={} shapes-yes.evaluate=[] shapes-yes.tables=[]"
    (folder / "write.py").write_text(
        "from promptecho.config.resolve import resolve, write_resolved\n"
        f"site = {{'experiments': ['shapes-yes'], 'experiments_dir': 'mine', 'set': {changes!r}}}\n"
        "print(write_resolved(resolve(site)['shapes-yes'], 'config'))\n"
    )
    resolved = ended([], script=folder / "write.py")[0].strip()
    plan = facts("plan", "--config", resolved, "--gpus-per-node", 1)
    [reward] = [phase for phase in plan["runs"][0]["phases"] if phase["name"] == "reward"]
    assert reward["flops"] > 0  # its own passes were counted

    (folder / "p.txt").write_text("A red circle.\nTwo blue squares.\nA green star.\nThree rings.\n")
    run(["caption", "prompts", "--prompts", "p.txt", "--heldout", "0", "--out", "c.h5", "--heldout-out", "h.jsonl"])
    words = ["--run", "yes-s1", "--to", "2", "--captions", "c.h5", "--out", "out/2", "--work", "work"]
    run(["train", "--config", resolved, *words])
    rows = read_jsonl(folder / "out/2/metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2]
    assert all(row["reward_0_yes"] == row["reward_mean"] and row["advantage_abs_mean"] > 0 for row in rows)
    assert (folder / "out/2/adapter/adapter_model.safetensors").is_file()


def test_a_reward_without_a_vlm_trains_without_one(folder):
    experiment = Experiment(module(folder / "mine"))
    sections = {"plugins": ["sharp:REWARD"], "rewards": [{"name": "sharpness"}]}
    config = experiment.config("one", sections=sections, iterations=1, checkpoints=[1])
    content = config.read_text().replace(str(experiment.vlm), "/nowhere/vlm")
    assert "/nowhere/vlm" in content
    config.write_text(content)
    assert "vlm" not in json.dumps(facts("models", "list", "--config", config))
    plan = facts("plan", "--config", config, "--gpus-per-node", 1)["runs"][0]
    assert plan["models"]["reward VLM"] == "none" and "reward VLM" not in plan["memory"][0]["held"]
    run(experiment.train(config, 1, "one"))
    [row] = read_jsonl(experiment.folder / "one/1/metrics.jsonl")
    assert row["reward_0_sharpness"] > 0 and row["advantage_abs_mean"] > 0
