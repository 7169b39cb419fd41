"""The measurements under perf/ run, and compute what they say. No times here."""

from __future__ import annotations

import os
import pstats
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_t2i
import torch
from forked import ended
from tiny_experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "perf"))


def test_the_update_and_the_straightforward_one_end_in_the_same_weights(tmp_path):
    experiment = Experiment(tmp_path)
    arguments = [
        "--config", experiment.config(), "--run", "r", "--captions",
        experiment.captions, "--iterations", "2", "--threads", "1",
    ]  # fmt: skip
    stdout, _ = ended(arguments, script=ROOT / "perf" / "train_step.py")
    text = " ".join(stdout.split())
    assert all(phase in text for phase in ("sample", "reward", "precompute", "update"))
    assert float(re.search(r"difference of a weight afterwards ([\d.e+-]+)", text)[1]) < 1e-6


def test_processes_of_a_training_end_in_the_weights_of_one(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())
    arguments = [
        "--config", experiment.config(), "--run", "r", "--captions", experiment.captions, "--processes", "1", "2",
        "--prompts", "2", "--images-per-prompt", "2",
    ]  # fmt: skip
    stdout, _ = ended(arguments, script=ROOT / "perf" / "processes.py")
    assert re.findall(r"\| 2 \| (\w+) \| 0\.500 \|", stdout) == ["sample", "reward", "precompute", "update"]
    sent, model, gap = re.search(r"\| 2 \| ([\d.]+) \(\S+ - \S+\) \| ([\d.]+) \| (\S+) \|", stdout).groups()
    assert float(sent) == pytest.approx(float(model), rel=0.25) and float(model) > 0 and float(gap) < 1e-3


def test_gradient_signal_measures_every_setting(tmp_path, monkeypatch):
    experiment = Experiment(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ["--config", experiment.config(), "--run", "r", "--captions", experiment.captions, "--sets", "2"]
    stdout, _ = ended(arguments, script=ROOT / "perf" / "gradient_signal.py")
    rows = re.findall(r"(t in|this run|\.\.\.)[^│]*│\s*(-?\d\.\d{3})", stdout)
    assert len(rows) >= 6 * 2 + 5
    assert all(-1 <= float(value) <= 1 for _, value in rows) and len({value for _, value in rows}) > 10


def test_the_gradient_of_chosen_images_is_compared_with_that_of_all(tmp_path, monkeypatch):
    experiment = Experiment(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ["--config", experiment.config(), "--run", "r", "--captions", experiment.captions, "--sets", "2"]
    stdout, _ = ended(arguments, script=ROOT / "perf" / "chosen_images.py")
    rows = {name.strip(): values for name, values in re.findall(r"│ ((?:all 4|\d)[^│]*)│(.*)│", stdout)}
    assert list(rows) == ["all 4", "3", "3, not centred", "2", "2, not centred", "2 at random"]
    assert rows["all 4"].replace(" ", "").split("│")[1:] == ["1.00", "0.00", "1.00", "1.00"]


def test_choices_are_compared_by_the_sums_of_their_images_gradients():
    from chosen_images import compared

    random = np.random.default_rng(0)
    images, advantages = random.normal(size=(3, 4, 5)), random.normal(size=(3, 4))
    advantages -= advantages.mean(1, keepdims=True)
    found = compared(images.reshape(12, 5) @ images.reshape(12, 5).T, advantages)
    whole = np.einsum("gk,gkd->gd", advantages, images) / 4
    some = np.stack(  # of two images, minus their mean: half of their distance, with both signs
        [np.ptp(a) / 2 * (g[a.argmax()] - g[a.argmin()]) / 2 for a, g in zip(advantages, images, strict=True)]
    )
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    along = {name: np.mean([g[i] @ whole[j] for i, j in pairs]) for name, g in (("all 4", whole), ("2", some))}
    noise = {name: np.sqrt((g**2).sum(1).mean()) for name, g in (("all 4", whole), ("2", some))}
    assert found["2"]["step"] == pytest.approx(along["2"] / noise["2"] / (along["all 4"] / noise["all 4"]))
    assert found["2"]["signal"] == pytest.approx(np.mean([some[i] @ some[j] for i, j in pairs]) / noise["2"] ** 2)
    a, b = some.sum(0), whole.sum(0)
    assert found["2"]["cosine"] == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)))
    assert found["2"]["size"] == pytest.approx(a @ b / (b @ b))


def test_a_job_s_usage_counts_all_that_ran_in_its_shell(tmp_path, monkeypatch):
    from job_usage import tell_usage, used_by_rule

    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/e/logs/burn").mkdir(parents=True)
    environ = tell_usage(tmp_path / "usage", dict(os.environ))
    burn = f"{sys.executable} -SE -c 'import time\nwhile time.process_time() < 0.3: pass'"
    for command, code in (
        (f"set -o pipefail; {burn} 2>&1 | tee -i results/e/logs/burn/a.b.log", 0),
        ("false 2>&1 | tee -i results/e/logs/other.log; exit 3", 3),
        ("kill -TERM $$ | tee -i results/e/logs/burn/c.log", -signal.SIGTERM),
        ("true", 0),  # no job
    ):
        done = subprocess.run(command, shell=True, executable=shutil.which("bash", path=environ["PATH"]), env=environ)
        assert done.returncode == code, command
    used = used_by_rule(tmp_path / "usage")
    assert {rule: jobs for rule, (jobs, _) in used.items()} == {"burn": 2, "other": 1}
    assert used["burn"][1] >= 0.3


def test_image_storage_measures_both_ways():
    stdout, _ = ended(["--images", "3", "--rounds", "1", "--side", "16"], script=ROOT / "perf" / "image_storage.py")
    assert re.findall(r"(files|zip) +(read|write) .* files (\d+)", stdout) == [
        ("files", "read", "4"), ("files", "write", "4"), ("zip", "read", "2"), ("zip", "write", "2"),
    ]  # fmt: skip


def test_one_look_at_a_simulated_run_asks_slurm_once():
    stdout, _ = ended(["--jobs", "60", "--looks", "1"], script=ROOT / "perf" / "status_jobs.py")
    assert "60 jobs, 60 lines of squeue, 1 looks; calls: squeue 1, sacct 0" in stdout
    assert re.search(r"generate_shard +30 +\d+ +\d+", stdout) and "Slurm: Priority" in stdout, stdout


def test_signal_is_one_where_gradients_agree_and_zero_where_they_are_orthogonal():
    from gradient_signal import signal

    same = torch.tensor([1.0, 2.0, 3.0])
    assert signal([same, 2 * same, 5 * same]) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert signal(list(torch.eye(4))) == pytest.approx((0.0, 0.0), abs=1e-6)
    common = [torch.cat([torch.ones(1), row]) for row in torch.eye(4)]  # half of each gradient is shared
    assert signal(common)[0] == pytest.approx(0.5)


def test_captions_in_both_files_are_the_same(tmp_path):
    from captions_store import SIDES, report, rows, wanted

    made, ours = rows(300), SIDES["ours"]
    ours.write(tmp_path / "c.h5", made)
    assert ours.read(tmp_path / "c.h5") == 300
    assert ours.texts(tmp_path / "c.h5") == sum(len(row[1]) for row in made)
    chosen = wanted(300)
    assert ours.random(tmp_path / "c.h5", chosen) == sum(len(made[index][1]) for index in chosen)
    one = {"side": "ours", "task": "read", "seconds": 2.0, "cpu_s": 1.0, "peak_gb": 0.5}
    assert "2.00 (2.00 - 2.00)" in report(
        [one | {"task": task} for task in ("write", "read", "texts", "random")], ["ours"]
    )


def example(folder: Path) -> Path:
    """A score file."""
    from promptecho.provenance import Provenance
    from promptecho.scores import ScoreItem, Scores, write_scores

    told = {key: key for key in ("backend", "mode", "judge_model", "config_digest", "git_commit", "prompts_digest")}
    provenance = Provenance(
        experiment="e", run="base", step=0, benchmark="geneval", scorer="geneval", n=1, failures=0, **told
    )
    items = [ScoreItem(prompt_id="0", image_index=0, group="single_object", outcome=1.0, failed=False)]
    write_scores(folder / "example.json", Scores(provenance=provenance, summary={"overall": 1.0}, items=items))
    return folder / "example.json"


def test_score_files_for_the_measurement_are_read_by_tables(tmp_path):
    from before_after import report, run, same_files, score_files

    from promptecho.tables.collect import find_score_files, read_score_files

    score_files(tmp_path / "e", example(tmp_path), 3, 8)
    files = read_score_files(find_score_files([tmp_path / "e"], "geneval"), "geneval")
    assert [file.label for file in files] == ["base", "r @ 1", "r @ 2"] and len(files[0].scores.items) == 8
    assert same_files(tmp_path / "e", tmp_path / "e") == "3 files, of which differ (but for the commit): none"
    one = run(ROOT, ["-c", "import promptecho"], tmp_path)
    found = [{"name": "x", "side": side, **one} for side in ("now", "before")]
    assert "x: before / now seconds 1 (1 - 1)" in report(found, ["now", "before"])


def test_a_dry_run_is_measured_beside_a_bare_workflow_of_the_same_jobs(tmp_path):
    from dry_run import prepare, run

    total, profile = prepare(tmp_path, 60), tmp_path / "dry_run.prof"
    assert run("bare", ROOT, tmp_path)["jobs"] == run("now", ROOT, tmp_path, profile)["jobs"] == total
    # What thousands of jobs have in common is asked once.
    calls: dict[str, int] = {}
    for (file, _, name), (_, count, _, _, callers) in pstats.Stats(str(profile)).stats.items():
        if "promptecho" in file:
            calls[name] = calls.get(name, 0) + count
        if (Path(file).name, name) == ("inspect.py", "signature"):
            asking = [found[0] for (_, _, caller), found in callers.items() if caller == "get_function_params"]
            calls["signature"] = sum(asking)
    assert calls["slice_value"] + calls["inputs_of"] < total / 2
    assert calls["signature"] < 12 * total  # 36 where the functions of our rules do not say what they take


def test_every_script_of_the_folder_is_named_in_its_readme():
    told = (ROOT / "perf" / "README.md").read_text(encoding="utf-8")
    folder = ROOT / "perf"
    paths = [str(path.relative_to(folder)) for path in [*folder.glob("*.py"), *folder.glob("gpu/*.py")]]
    assert len(paths) > 20 and not [path for path in paths if f"`{path}`" not in told]


def test_image_quality_counts_images_without_a_malformed_object(tmp_path, capsys):
    """Of four images the base model draws three well, the two seeds all; the other is cut off."""
    import image_quality

    from promptecho.files import write_jsonl
    from promptecho.shapes.render import render
    from promptecho.shapes.world import Scene, Thing

    drawn = render(Scene((Thing("circle", "red", 32, 32, 14),)))
    cut = drawn.copy()
    cut.paste(drawn.getpixel((0, 0)), (32, 0, 64, 34))
    for run, step, images in (
        ("base", 0, [drawn, drawn, drawn, cut]), ("r-s1", 5, [drawn] * 4), ("r-s2", 5, [drawn] * 4),
    ):  # fmt: skip
        folder = tmp_path / run / str(step) / "held"
        rows: list[dict[str, Any]] = [
            {"prompt_id": f"p{i}", "image_index": 0, "prompt": "a red circle", "filename": f"{i}.png"} for i in range(4)
        ]
        write_jsonl(folder / "shards/0.jsonl", rows)
        for row, image in zip(rows, images, strict=True):
            image.save(folder / row["filename"])
    image_quality.main([str(tmp_path), "--set", "held", "--step", "5", "r-s1", "r-s2"])
    table, base, trained = capsys.readouterr().out.splitlines()
    assert "4 images of 4" in table
    assert base.split()[:3] == ["base", "4", "75.0"] and trained.split()[:3] == ["r", "8", "100.0"]
    assert "+25.0" in trained


def test_moving_pairs_says_what_is_wrong_and_how_often_it_is_seen(capsys):
    import moving_pairs

    from promptecho.moving.grammar import parse

    def told(true: str, wrong: str) -> str:
        return moving_pairs.what_is_wrong(parse(true), parse(wrong))

    assert told("A red circle moves up.", "A red circle moves down.") == "opposite motion"
    assert told("A red circle moves up.", "A red circle stays still.") == "motion"
    one, other = (
        "A red circle moves up and a blue cross moves left.",
        "A blue circle moves up and a red cross moves left.",
    )
    assert told(one, other) == "colors swapped"
    moving_pairs.main(["--pairs", "6"])
    (total, *_) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"any: [456] of 6, [\d.]+ % \[[\d.]+, [\d.]+\]", total)
