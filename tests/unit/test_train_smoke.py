"""`promptecho train --smoke`: two ranks on gloo come to the numbers of one, and what fails is said with its phase."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from forked import ended, ranks, run
from safetensors.torch import load_file, save_file
from tiny_experiment import Experiment

from promptecho.config import load_experiment, run_training
from promptecho.doctor import all_reduce
from promptecho.files import read_json, write_json
from promptecho.train import smoke

EXPERIMENTS = Path(__file__).resolve().parent.parent.parent / "config/experiments"
# Both trials in one process that imports everything once.
SCRIPT = """
import contextlib, json, sys
from pathlib import Path
from promptecho.train import smoke
with contextlib.redirect_stdout(sys.stderr):
    outcomes = [smoke.smoke(Path(path), None, 2, "cpu") for path in sys.argv[1:]]
print(json.dumps([outcome.facts() for outcome in outcomes]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[dict]:
    """Of sound models, and of a VLM whose weights are gone."""
    experiment = Experiment(tmp_path_factory.mktemp("smoke"))
    sound = experiment.config("sound")
    broken = experiment.folder / "broken"
    broken.mkdir()
    for file in experiment.vlm.iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    text = sound.read_text().replace(str(experiment.vlm), str(broken))
    (experiment.folder / "broken.yaml").write_text(text)
    script = experiment.folder / "smoke.py"
    script.write_text(SCRIPT)
    return json.loads(ended([sound, experiment.folder / "broken.yaml"], script=script)[0])


def test_two_ranks_come_to_the_numbers_of_one(outcomes):
    found = outcomes[0]
    assert found["passed"] and found["problem"] == "", found
    assert [trial["name"] for trial in found["trials"]] == ["one process", "sharded", "offloaded"]
    assert [trial["processes"] for trial in found["trials"]] == [1, 2, 2]
    for trial in found["trials"]:
        assert all(trial["seconds"][phase] > 0 for phase in smoke.PHASES) and trial["memory_gb"]["update"] > 0
    assert set(found["differences"]) == {"reward", "gradient norm", "weights"}
    assert 0 < found["differences"]["weights"]["found"] <= found["differences"]["weights"]["tolerated"]


def test_what_fails_is_said_with_its_phase(outcomes):
    found = outcomes[1]
    assert not found["passed"] and len(found["trials"]) == 1
    assert found["problem"].startswith("one process: in phase load_vlm: ") and "broken" in found["problem"]
    assert found["problem"].endswith("(exit code 1)") and "\n" not in found["problem"]


@pytest.mark.parametrize("name", ["zimage", "qwenimage", "shapes"])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_projects_experiments_can_be_tried(tmp_path, name, ranks):
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    raw = smoke.settings(experiment, None, ranks, tmp_path, small=False)
    write_json(tmp_path / "tried.yaml", raw)
    tried = load_experiment(tmp_path / "tried.yaml")
    ours, theirs = run_training(tried, smoke.RUN), run_training(experiment, next(iter(experiment.runs)))
    assert tried.models == experiment.models and ours.lora == theirs.lora
    assert ours.micro_batch_size == theirs.micro_batch_size and ours.checkpoint_steps == [1, 2]


def test_several_processes_that_do_not_exchange_gradients_fail(tmp_path):
    """Weights that are off by half, and a gradient without the others' part."""
    for name, factor in (("one", 1.0), ("several", 0.5)):
        (tmp_path / name / "state").mkdir(parents=True)
        tensors = {"x.lora_A.weight": torch.ones(4), "x.lora_B.weight": torch.arange(4.0) * factor}
        save_file(tensors, tmp_path / name / "state/weights.safetensors")
    assert load_file(tmp_path / "one/state/weights.safetensors")["x.lora_B.weight"].norm() > 0
    one = [{"reward_mean": -1.0, "grad_norm": 1.0}] * 2
    other = [{"reward_mean": -1.0, "grad_norm": 0.7}] * 2
    for dtype in ("float32", "bfloat16"):
        found = smoke.compare(tmp_path / "one", tmp_path / "several", one, other, dtype)
        problem = smoke.Smoke([], found).problem
        assert "come to another gradient norm and weights than one: do not train on them" in problem


def test_where_the_whole_model_is_trained_all_its_weights_are_compared(tmp_path):
    for name, moved in (("one", 0.4), ("same", 0.4), ("half", 0.2)):
        (tmp_path / name / "state").mkdir(parents=True)
        save_file({"x.weight": torch.full((25,), 3.0 + moved)}, tmp_path / name / "state/weights.safetensors")
    rows = [{"reward_mean": -1.0, "grad_norm": 1.0, "update_norm": 1.0}] * 2
    for name, gap in (("same", 0.0), ("half", 0.5)):
        found = smoke.compare(tmp_path / "one", tmp_path / name, rows, rows, "float32")
        assert found["weights"][0] == pytest.approx(gap, abs=1e-6)


def test_without_a_gradient_nothing_was_compared(tmp_path):
    (tmp_path / "state").mkdir()
    save_file({"x.lora_B.weight": torch.zeros(4)}, tmp_path / "state/weights.safetensors")
    rows = [{"reward_mean": 0.7, "grad_norm": 0.0}] * 2
    found = smoke.compare(tmp_path, tmp_path, rows, rows, "float32")
    assert [value for value, _ in found.values()] == [0.0, 0.0, 0.0]
    problem = smoke.Smoke([smoke.Trial("one process", 1, "load", rows=rows)], found).problem
    assert "no gradient to compare; try a run whose reward is echo" in problem
    one_sided = smoke.compare(tmp_path, tmp_path, rows, [{"reward_mean": 0.7, "grad_norm": 0.1}] * 2, "float32")
    assert one_sided["gradient norm"][0] == float("inf")


def test_the_table_ends_in_one_line(monkeypatch):
    trial = smoke.Trial("sharded", 2, "load", rows=[{"seconds_sample": 1.25, "memory_gb_sample": 3.0}])
    failed = "in phase load_vlm: no folder"
    for error, line in (("", "PASS: "), (failed, f"FAIL: sharded: {failed}; if it hangs")):
        trial.error = error
        monkeypatch.setattr(sys, "stdout", said := io.StringIO())
        smoke.show(smoke.Smoke([trial]), False)
        lines = said.getvalue().splitlines()
        assert lines[-1].startswith(line) and any("1.2 / 3.0" in row for row in lines)


def test_ranks_of_the_preflight_add_up_a_tensor_and_tell_how_fast(tmp_path):
    out = tmp_path / "exchange.json"
    run(["gloo", out, "1"], ranks(2), script=Path(all_reduce.__file__))
    found = read_json(out)
    assert (found["ranks"], found["backend"], found["right"]) == (2, "gloo", True)
    assert found["gb_s"] > 0 and found["bus_gb_s"] == pytest.approx(found["gb_s"])  # 2 (n - 1) / n of it
